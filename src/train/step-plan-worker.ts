// A process that begins to compile the step of a run, over memory nobody touched, and is ended once XLA has planned it.
import {text} from 'node:stream/consumers';
import * as tf from '@tensorflow/tfjs';
import {compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import {startEngine} from '../engine/start.js';
import {createHollowVariable} from '../engine/variable.js';
import {matMul} from '../op/mat-mul.js';
import {describeError, EnvironmentError} from '../util/errors.js';
import {outlineOf} from './outline.js';
import {PARTS} from './part.js';
import {compileApply, compileStep} from './step.js';
import type {PlanOrder, PlanWord} from './step-plan.js';
import {stepOptionsOf} from './trainer.js';

const order = JSON.parse(await text(process.stdin)) as PlanOrder;
try {
  await plan(order);
} catch (error) {
  const hint = error instanceof EnvironmentError ? error.hint : undefined;
  say({kind: 'failed', message: describeError(error), ...(hint !== undefined && {hint})});
  process.exit(0);
}

async function plan({run, planes}: PlanOrder): Promise<void> {
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
  const topK = distill?.top;
  const options = stepOptionsOf({run, engine, teacher: topK === undefined ? teacher : null});
  const {step, accumulate} = compileStep(state, options);
  const {sequenceLength} = run.data;
  const batch = tf.zeros([planes, sequences, sequenceLength], 'int32') as tf.Tensor3D;
  const taught = topK === undefined ? [] : [tf.zeros([2, sequences * sequenceLength, topK]) as tf.Tensor3D];
  const seed = tf.tensor1d([0, 0], 'int32');
  const rates = tf.zeros([3 + PARTS.length]) as tf.Tensor1D;
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
