// A process that begins to compile the step of a run, over memory nobody touched, and is ended once XLA has planned it.
import {once} from 'node:events';
import {rmSync} from 'node:fs';
import {createInterface} from 'node:readline';
import {compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import {startEngine} from '../engine/start.js';
import * as tf from '../engine/tfjs.js';
import {createHollowVariable} from '../engine/variable.js';
import {matMul} from '../op/mat-mul.js';
import {recordOf} from '../util/errors.js';
import {outlineOf} from './outline.js';
import {ratesOf} from './rates.js';
import {compileApply, compileStep, ratesTensor} from './step.js';
import {stepOptionsOf} from './step-options.js';
import type {PlanOrder, PlanWord} from './step-plan.js';

const input = createInterface(process.stdin);
const [line] = (await once(input, 'line')) as [string];
const order = JSON.parse(line) as PlanOrder;
input.once('close', () => {
  rmSync(order.folder, {recursive: true, force: true}); // whoever gave the order is gone
  process.kill(process.pid, 'SIGKILL'); // an orderly exit would wait for the compiler
});
await plan(order).catch((error: unknown) => say({kind: 'failed', error: recordOf(error)}));
process.stdout.write('', () => process.exit(0));

async function plan({run, planes}: Omit<PlanOrder, 'folder'>): Promise<void> {
  const engine = await startEngine(run.engine);
  const {device, precision, notes} = engine;
  say({kind: 'engine', device, precision, notes, residentBytes: process.memoryUsage.rss()});
  if (engine.engine === 'wasm') return;
  say({kind: 'rate', flopsPerSecond: await matMulRate(device === 'cuda' ? 4096 : 1024, precision)});
  const {state, teacher} = await outlineOf(run, createHollowVariable);
  const {
    batch: {sequences},
    distill,
  } = run.train;
  const topK = distill?.top === undefined ? undefined : Math.min(distill.top, state.architecture.vocab); // as a teacher has
  const options = stepOptionsOf({run, engine, teacher: topK === undefined ? teacher : null});
  const {step, accumulate} = compileStep(state, options);
  const {sequenceLength} = run.data;
  const batch = tf.zeros([planes, sequences, sequenceLength], 'int32') as tf.Tensor3D;
  const taught = topK === undefined ? [] : [tf.zeros([2, sequences * sequenceLength, topK]) as tf.Tensor3D];
  const seed = tf.tensor1d([0, 0], 'int32');
  const rates = ratesTensor(ratesOf(run.train.optimizer, 0, 1));
  if (!state.trained.some(({sum}) => sum)) {
    await step(batch, seed, rates, ...taught);
    return;
  }
  await Promise.all([
    accumulate(batch, seed, tf.tensor1d([1, 1]), ...taught),
    compileApply(state, options)(rates, tf.scalar(0)),
  ]);
}

/** Floating-point operations a second of a product of two square matrices, the best of half a second. */
async function matMulRate(side: number, precision: Precision): Promise<number> {
  const product = compile((a: tf.Tensor2D, b: tf.Tensor2D) => ({sum: tf.sum(matMul(a, b))}), {precision});
  const [a, b] = [tf.fill([side, side], 0.5), tf.fill([side, side], 0.25)] as [tf.Tensor2D, tf.Tensor2D];
  const time = async (): Promise<number> => {
    const began = performance.now();
    const {sum} = await product(a, b);
    await sum.data();
    sum.dispose();
    return (performance.now() - began) / 1000;
  };
  await time();
  const end = performance.now() + 500;
  let best = Number.POSITIVE_INFINITY;
  while (performance.now() < end) best = Math.min(best, await time());
  product.dispose();
  tf.dispose([a, b]);
  return (2 * side ** 3) / best;
}

function say(word: PlanWord): void {
  process.stdout.write(`${JSON.stringify(word)}\n`);
}
