/** Families that a mixture can be asked to be exported to, in no order of worth. */
export const TARGET_NAMES = [
  'mixtral',
  'qwen2_moe',
  'qwen3_moe',
  'olmoe',
  'flex_olmo',
  'dbrx',
  'granitemoeshared',
  'glm4_moe',
  'deepseek_v3',
] as const;

/** One of {@link TARGET_NAMES}. */
export type TargetName = (typeof TARGET_NAMES)[number];
