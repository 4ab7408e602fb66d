import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/** `RNG_ALG_PHILOX` of TensorFlow's stateless random operations. */
const PHILOX = 1;

/**
 * The low 23 bits of Philox-4x32-10 as a number in [0, 1).
 *
 * Made from the integer operation because TensorFlow and XLA turn the same bits into different floats.
 */
export function randomUniform({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const {shape} = call.attrs as {shape: number[]};
  const results = withRaw(binding, (raw) => {
    const key = raw.run(
      'Bitcast',
      [typeAttr('T', TF.INT32), typeAttr('type', TF.UINT64)],
      toIds([input(call, 'seed')]),
    );
    const keys = raw.run('Reshape', [typeAttr('T', TF.UINT64), typeAttr('Tshape', TF.INT32)], [key.id, raw.int([1])]);
    const counter = raw.constant(new BigInt64Array(2), [2], TF.UINT64);
    const attributes = [typeAttr('dtype', TF.INT32), typeAttr('Tshape', TF.INT32)];
    const inputs = [raw.int(shape), keys.id, counter, raw.int(PHILOX)];
    const bits = raw.run('StatelessRandomUniformFullIntV2', attributes, inputs).id;
    const low = raw.run('BitwiseAnd', [typeAttr('T', TF.INT32)], [bits, raw.int(0x7fffff)]).id;
    const number = raw.run('Cast', [typeAttr('SrcT', TF.INT32), typeAttr('DstT', TF.FLOAT)], [low]).id;
    const scale = raw.constant(Float32Array.of(2 ** -23), [], TF.FLOAT);
    return [raw.run('Mul', [typeAttr('T', TF.FLOAT)], [number, scale])];
  });
  const [result] = results;
  if (!result) throw new Error('random numbers have no output');
  return toTensor(result);
}
