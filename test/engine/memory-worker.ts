/**
 * One process for memory.test.ts: `memory-worker.ts <what>`; prints one JSON line, sizes in MiB.
 *
 * Peaks are VmHWM, the kernel's record of the most memory a process ever held, so each measurement needs a process.
 */
import {readFileSync} from 'node:fs';
import {compile} from '../../src/engine/compile.js';
import {startEngine} from '../../src/engine/start.js';
import {createVariable} from '../../src/engine/variable.js';
import {recompute} from '../../src/op/recompute.js';
import * as tf from '../support/tfjs.js';

await startEngine({device: 'cpu'});
const what = process.argv[2];
process.stdout.write(`${JSON.stringify(what === 'update' ? await update() : await chain(what === 'recompute'))}\n`);

/** Growth over three in-place updates of a variable of 128 MB. */
async function update(): Promise<object> {
  const size = 32 * 2 ** 20;
  const variable = createVariable('large', [size], new Float32Array(size).fill(1));
  const step = compile((x: tf.Tensor) => {
    variable.assign(tf.add(tf.mul(variable.read(), 2), x));
    return tf.neg(x);
  });
  const x = tf.scalar(1);
  tf.dispose(await step(x)); // compiles
  const [before, peakBefore] = [megabytes('VmRSS'), megabytes('VmHWM')];
  for (let i = 0; i < 3; i++) tf.dispose(await step(x));
  const grown = {held: megabytes('VmRSS') - before, peak: megabytes('VmHWM') - peakBefore};
  const first = tf.tidy(() => variable.read().slice([0], [2]).dataSync()[1]);
  return {...grown, first};
}

/** Gradient of 16 layers that each keep five results of 1 MB; the parent reads XLA's own account of its buffers. */
async function chain(isRecomputed: boolean): Promise<object> {
  const layer = (...[x]: tf.Tensor[]): tf.Tensor => {
    let y = x!;
    for (let i = 0; i < 4; i++)
      y = tf.tanh(tf.matMul(tf.sin(y) as tf.Tensor2D, tf.fill([64, 64], 0.02) as tf.Tensor2D));
    return tf.add(x!, y);
  };
  const body = (x: tf.Tensor): tf.Tensor => {
    let y = x;
    for (let i = 0; i < 16; i++) y = isRecomputed ? recompute(layer, [y]) : layer(y);
    return tf.sum(y);
  };
  const gradient = compile((x: tf.Tensor) => tf.grad(body)(x));
  const result = await gradient(tf.fill([4096, 64], 0.1));
  return {sum: tf.tidy(() => tf.sum(result).dataSync()[0])};
}

function megabytes(field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024;
}
