import {createRng, type Rng} from '../util/rng.js';
import {numElements} from '../util/shape.js';
import type {Architecture} from './architecture.js';
import type {ParameterSpec} from './parameters.js';

/** Standard deviation of fresh weights, as in GPT-2 and most models since. */
const STD = 0.02;
/** Draws further out than this many standard deviations are drawn again. */
const CUT = 3;

/**
 * Fresh values of a parameter: norms 1, biases 0, matrices truncated normal with std 0.02, those that write into the
 * residual stream over `sqrt(2 · layers)` (Radford et al. 2019, section 2.3).
 *
 * Each path draws from its own stream of the seed, so the values do not depend on what else is made, or in what order.
 */
export function initialValues(
  {path, shape, role, isOutput}: ParameterSpec,
  {ffn}: Architecture,
  seed: number,
): Float32Array {
  const values = new Float32Array(numElements(shape));
  switch (role) {
    case 'norm':
      return values.fill(1);
    case 'bias':
    case 'scale':
    case 'attention-bias':
    case 'expert-bias':
      return values;
    case 'embedding':
    case 'attention':
    case 'ffn':
    case 'router':
    case 'shared':
    case 'expert':
      return fillNormal(values, isOutput ? STD / Math.sqrt(2 * ffn.length) : STD, createRng(seed, `init/${path}`));
  }
}

function fillNormal(values: Float32Array, std: number, rng: Rng): Float32Array {
  for (let i = 0; i < values.length; i++) {
    let draw = rng.normal();
    while (Math.abs(draw) > CUT) draw = rng.normal();
    values[i] = std * draw;
  }
  return values;
}
