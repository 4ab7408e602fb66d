// One process for program-cache.test.ts: compiles a function, runs it, prints what it gives as one JSON line, and ends by itself.

import {compile} from '../../src/engine/compile.js';
import {startEngine} from '../../src/engine/start.js';
import * as tf from '../support/tfjs.js';

await startEngine({device: 'cpu'});
const variable = tf.variable(tf.ones([8, 8])) as tf.Tensor2D;
const fn = compile((x: tf.Tensor2D) => {
  let y: tf.Tensor2D = x;
  for (let i = 0; i < 20; i++) y = tf.tanh(tf.add(tf.matMul(y, variable), tf.sum(x, 0))) as tf.Tensor2D;
  return tf.softmax(tf.mul(y, x) as tf.Tensor2D);
});
const values = await (
  await fn(
    tf.tensor2d(
      Float32Array.from({length: 64}, (_, i) => Math.sin(i)),
      [8, 8],
    ),
  )
).data();
process.stdout.write(`${JSON.stringify({bits: Buffer.from(values.buffer).toString('hex')})}\n`);
