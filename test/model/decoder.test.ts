import {expect} from 'vitest';
import {decode} from '../../src/model/decoder.js';
import {leavesOf, mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {routeByModel} from '../../src/model/router.js';
import {onEngine} from '../support/engines.js';
import {integers, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {experts, tiny} from '../train/support.js';

onEngine(
  'wasm',
  'a router of a layer that is computed again draws from a seed that waits for the gradient',
  async ({run}) => {
    const architecture = tiny([experts(4, 2)]);
    const specs = leavesOf(parameterSpecs(architecture));
    const inputs = specs.map(({shape}, i) => normals(shape, i));
    const seeds: tf.Tensor[] = [];
    const fn = (token_BS: tf.Tensor, ...tensors: tf.Tensor[]): tf.Tensor => {
      const seed_2 = tf.tensor1d([1, 2], 'int32');
      const loss = (...weights: tf.Tensor[]): tf.Scalar => {
        const tree = mapTree(
          parameterSpecs(architecture),
          ({path}) => weights[specs.findIndex((spec) => spec.path === path)]!,
        );
        const {hidden_TD} = decode(
          tree,
          architecture,
          {token_BS: token_BS as tf.Tensor2D},
          {
            recomputesLayers: true,
            routerOf: () => ({
              seed_2,
              route: (input, seed) => {
                seeds.push(seed);
                return routeByModel(input);
              },
            }),
          },
        );
        return tf.sum(hidden_TD);
      };
      return tf.grads((...weights) => loss(...weights))(tensors)[0]!;
    };
    await run(fn, integers([2, 4], 274, 1), ...inputs);
    expect(seeds).toHaveLength(2);
    expect(seeds[1]!.id).not.toBe(seeds[0]!.id);
  },
);
