/**
 * One process for memory.test.ts: `memory-worker.ts <what>`; prints one JSON line, sizes in MiB.
 *
 * Peaks are VmHWM, the kernel's record of the most memory a process ever held, so each measurement needs a process.
 */
import {readFileSync} from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import {compile} from '../../src/engine/compile.js';
import {startEngine} from '../../src/engine/start.js';
import {createVariable, type Variable} from '../../src/engine/variable.js';
import {recompute} from '../../src/op/recompute.js';
import {adamW} from '../../src/train/optimizer.js';

await startEngine({device: 'cpu'});
const what = process.argv[2];
process.stdout.write(`${JSON.stringify(await measure(what))}\n`);
process.exit(0);

function measure(name: string | undefined): Promise<object> {
  if (name === 'update') return update();
  return name === 'adamw' ? optimize() : chain(name === 'recompute');
}

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

/** One AdamW update of a parameter of 32 MB whose gradient is made in the same function. */
async function optimize(): Promise<object> {
  const size = 8 * 2 ** 20;
  const [value, first, second] = ['value', 'first', 'second'].map((name) =>
    createVariable(name, [size], new Float32Array(size).fill(1)),
  ) as [Variable, Variable, Variable];
  const scalar = tf.scalar(0.5);
  const step = compile((x: tf.Tensor) => {
    const before = {value: value.read(), first: first.read(), second: second.read()};
    const shared = {learningRate: x, firstCorrection: x, secondCorrection: x, isSafe: tf.greater(x, 0)};
    const after = adamW(
      before,
      tf.mul(before.value, x),
      shared,
      {betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1},
      0.1,
    );
    value.assign(after.value);
    first.assign(after.first);
    second.assign(after.second);
    return tf.neg(x);
  });
  tf.dispose(await step(scalar));
  return {sum: tf.tidy(() => value.read().slice([0], [1]).dataSync()[0])};
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
