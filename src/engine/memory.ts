import {getEngine} from './state.js';
import * as tf from './tfjs.js';

/** Tensors alive: what tfjs holds, and what the runtime behind it holds (equal counts of growth mean no leak). */
export function liveTensors(): {readonly tfjs: number; readonly native: number} {
  const engine = getEngine();
  const {numTensors} = tf.memory();
  return {
    tfjs: numTensors,
    native: engine.kind === 'tensorflow' ? engine.backend.binding.getNumOfTensors() : numTensors,
  };
}
