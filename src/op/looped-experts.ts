import {hasLoops, runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';
import {type ExpertRoom, type ExpertSlots, expertProduct, partsOf} from './experts.js';
import {multiply} from './mat-mul.js';
import type {Product} from './product.js';

/** From so many numbers on, to read a matrix where it lies is worth a turn of a loop. */
const LEAST_MATRIX = 2 ** 15;

/**
 * {@link expertProduct} without a gradient: spare blocks are a loop over those in use, none of whose matrices is gathered, where
 * matrices are large and programs have loops.
 *
 * Only to generate with: in a training step it saves time, too, but takes more memory and longer to compile (docs/log.md).
 */
export function loopedProduct(slots: ExpertSlots): Product<tf.Tensor2D, tf.Tensor3D> {
  const {room, expert_S, load_E} = slots;
  const gathered = expertProduct(slots);
  return {
    constants: [expert_S, load_E],
    multiply: (x_RD, w_EDF, [expert, load]) => {
      const [E, D, F] = w_EDF.shape;
      const [own, spare] = partsOf(x_RD, E, room);
      if (!own || !spare || D * F < LEAST_MATRIX || !hasLoops()) {
        return gathered.multiply(x_RD, w_EDF, [expert as tf.Tensor1D]);
      }
      const used = usedBlocks(load as tf.Tensor1D, room);
      const inputs = {rows: spare, matrices: w_EDF, expert: expert as tf.Tensor1D, used};
      const parts = [multiply(own, w_EDF, false, false), runKernel('DowncycleBlockMatMul', inputs, {})];
      return tf.concat2d(
        parts.map((y) => tf.reshape(y, [-1, F]) as tf.Tensor2D),
        0,
      );
    },
    gradients: () => {
      throw new Error('a looped product has no gradient');
    },
  };
}

/** Each expert takes a block for every `blockRows` rows, or fewer, beyond its own; int32 []. */
function usedBlocks(load_E: tf.Tensor1D, {rows, blockRows, blocks}: ExpertRoom): tf.Scalar {
  const beyond_E = tf.maximum(tf.sub(load_E, tf.scalar(rows, 'int32')), tf.scalar(0, 'int32'));
  const taken_E = tf.floorDiv(tf.add(beyond_E, tf.scalar(blockRows - 1, 'int32')), tf.scalar(blockRows, 'int32'));
  return tf.minimum(tf.sum(taken_E), tf.scalar(blocks, 'int32')) as tf.Scalar;
}
