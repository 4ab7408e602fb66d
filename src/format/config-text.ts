/** Numbers of `config.json` that transformers wants with a decimal point: it refuses some of them, and warns of others. */
const REALS = [
  'attention_dropout',
  'attention_factor',
  'attention_multiplier',
  'beta_fast',
  'beta_slow',
  'clip_qkv',
  'embedding_multiplier',
  'factor',
  'high_freq_factor',
  'initializer_range',
  'logits_scaling',
  'low_freq_factor',
  'moe_loss_weight',
  'moe_normalize_expert_weights',
  'partial_rotary_factor',
  'residual_multiplier',
  'rms_norm_eps',
  'rope_theta',
  'routed_scaling_factor',
  'router_aux_loss_coef',
  'router_jitter_noise',
];

const WHOLE_REAL = new RegExp(`^( *"(?:${REALS.join('|')})": -?\\d+)(?=,?$)`, 'gm');

/** The text of a `config.json`, with `1.0` where the number is a real one; JavaScript alone would write `1`. */
export function renderConfig(config: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(config, null, 2).replace(WHOLE_REAL, '$1.0')}\n`;
}
