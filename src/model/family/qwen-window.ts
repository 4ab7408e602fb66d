import {z} from 'zod';

const why = 'is supported, since windows differ by layer';

/** Keys of Qwen configs that give some layers a window, which is refused: no published Qwen of these families has one. */
export const fullAttentionFields = {
  use_sliding_window: z.literal(false, {error: `only false ${why}`}).optional(),
  layer_types: z
    .array(z.literal('full_attention', {error: `only "full_attention" ${why}`}), {error: 'a list is needed'})
    .optional(),
};
