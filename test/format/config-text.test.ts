import {expect, it} from 'vitest';
import {renderConfig} from '../../src/format/config-text.js';

it('writes real numbers with a point, at any depth, and leaves the others alone', () => {
  const config = {
    model_type: 'x',
    router_jitter_noise: 0,
    rope_parameters: {rope_theta: 10_000, factor: 8, original_max_position_embeddings: 32},
    rms_norm_eps: 1e-6,
    ffn_config: {moe_normalize_expert_weights: 1},
    vocab_size: 48,
    note: '"factor": 1',
  };
  const text = renderConfig(config);
  expect(JSON.parse(text)).toEqual(config);
  expect(text.split('\n').slice(2, 12)).toEqual([
    '  "router_jitter_noise": 0.0,',
    '  "rope_parameters": {',
    '    "rope_theta": 10000.0,',
    '    "factor": 8.0,',
    '    "original_max_position_embeddings": 32',
    '  },',
    '  "rms_norm_eps": 0.000001,',
    '  "ffn_config": {',
    '    "moe_normalize_expert_weights": 1.0',
    '  },',
  ]);
});
