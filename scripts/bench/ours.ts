// Our side of the benchmark: the training step of src/train. Speaks JSON lines on stdin and stdout, see protocol.ts.
import {createInterface} from 'node:readline';
import {type Compiled, compile} from '../../src/engine/compile.js';
import {startEngine} from '../../src/engine/start.js';
import {getEngine} from '../../src/engine/state.js';
import * as tf from '../../src/engine/tfjs.js';
import {createVariable} from '../../src/engine/variable.js';
import {type Capacity, expertRoom} from '../../src/model/capacity.js';
import {initialValues} from '../../src/model/init.js';
import {mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {matMul} from '../../src/op/mat-mul.js';
import {optimizerSchema} from '../../src/train/optimizer/options.js';
import {ratesOf} from '../../src/train/rates.js';
import {createTrainState, type TrainState} from '../../src/train/state.js';
import {createStepRunner, type StepResult, type StepRunner} from '../../src/train/step-runner.js';
import {describeError} from '../../src/util/errors.js';
import {type ExecuteClock, installExecuteClock} from './execute-clock.js';
import type {Answer, Request, Setup, StepTime} from './protocol.js';

interface Training {
  readonly setup: Setup;
  readonly runner: StepRunner;
  readonly clock: ExecuteClock;
  readonly batches: readonly Int32Array[];
  /** A plain product, compiled. */
  readonly product: Compiled<[tf.Tensor2D, tf.Tensor2D], {result: tf.Tensor}>;
  numSteps: number;
}

async function start(setup: Setup): Promise<{training: Training; version: string}> {
  const {version} = await startEngine({device: setup.device, precision: setup.precision, threads: setup.threads});
  const engine = getEngine();
  if (engine.kind !== 'tensorflow') throw new Error('the benchmark needs TensorFlow');
  const clock = installExecuteClock(engine.backend.binding.runtime.c);
  const runner = createStepRunner(await createState(setup), {
    optimizer: setup,
    dropout: 0,
    teacher: null,
    clip: 0,
    balance: {kind: 'aux', weight: setup.balanceWeight, scope: 'batch', zLoss: 0},
    precision: setup.precision,
    capacity: capacityOf(setup),
    sequenceLength: setup.sequence,
  });
  const batches = setup.batches.map((tokens) => Int32Array.from(tokens));
  const product = compile((x: tf.Tensor2D, y: tf.Tensor2D) => ({result: matMul(x, y)}), {
    name: 'bench_matmul',
    precision: setup.precision,
  });
  return {training: {setup, runner, clock, batches, product, numSteps: 0}, version};
}

async function createState(setup: Setup): Promise<TrainState> {
  const {architecture, weights, seed} = setup;
  const parameters = mapTree(parameterSpecs(architecture), (spec) => {
    const given = weights?.[spec.path];
    return createVariable(
      spec.path,
      spec.shape,
      given ? Float32Array.from(given) : initialValues(spec, architecture, seed),
    );
  });
  const model = {path: '', architecture, config: {}, parameters, warnings: [], dispose: () => undefined};
  return createTrainState(model, {
    finetune: setup.finetune,
    optimizer: setup,
    accumulates: false,
    movesBiases: false,
    seed,
    stored: (name) => Promise.resolve(weights?.[name] ? Float32Array.from(weights[name]) : null),
  });
}

async function steps(training: Training, count: number): Promise<Answer<'steps'>> {
  const times: StepTime[] = [];
  let last: StepResult | null = null;
  for (let i = 0; i < count; i++) {
    const {time, result} = await step(training);
    times.push(time);
    last = result;
  }
  const loads = last?.load.map((layer) => [...layer]) ?? [];
  return {kind: 'steps', steps: times, loads, notes: loads.length > 0 ? [roomNote(training)] : []};
}

/** How much of the experts' work is padding, in words. */
function roomNote({setup}: Training): string {
  if (setup.capacity !== null) return `drops rows beyond ${setup.capacity} even shares an expert`;
  const tokens = setup.batch * setup.sequence;
  const layout = setup.architecture.ffn.find((one) => one.kind === 'moe');
  const room = layout ? expertRoom('dropless', tokens, layout) : 'all';
  if (room === 'all') return 'every expert computes every token';
  return `room for ${room.rows} rows an expert, and ${room.blocks} blocks of ${room.blockRows} more`;
}

function capacityOf({capacity}: Setup): Capacity {
  return capacity === null ? 'dropless' : {factor: capacity};
}

async function step(training: Training): Promise<{time: StepTime; result: StepResult}> {
  const {setup, runner, clock, batches} = training;
  const tokens = batches[training.numSteps % batches.length] ?? new Int32Array(0);
  const number = ++training.numSteps;
  const {kind, betas, eps, weightDecay, learningRate: lr} = setup;
  const rates = ratesOf(optimizerSchema.parse({kind, betas, eps, weightDecay, lr}), lr, number);
  clock.take();
  const begin = performance.now();
  const result = await runner.run([{tokens}], rates, {seed: setup.seed, step: number});
  const ms = performance.now() - begin;
  return {time: {ms, insideMs: clock.take(), loss: result.loss, overflow: result.overflow}, result};
}

/** Waits for a product, which a GPU may still be at, by reading a corner of it. */
async function computed(product: tf.Tensor): Promise<void> {
  const corner = tf.slice(product, [0, 0], [1, 1]);
  await corner.data();
  tf.dispose([product, corner]);
}

/** A plain product both ways: compiled by XLA, and as one operation of TensorFlow's own. */
async function matmul({product}: Training, size: number, repeats: number): Promise<Answer<'matmul'>> {
  const x = tf.randomNormal([size, size]) as tf.Tensor2D;
  const y = tf.randomNormal([size, size]) as tf.Tensor2D;
  const compiled = async (): Promise<void> => computed((await product(x, y)).result);
  const eager = (): Promise<void> => computed(tf.matMul(x, y));
  await compiled(); // traces and compiles, the first time
  const ms = {xla: await times(repeats, compiled), eager: await times(repeats, eager)};
  tf.dispose([x, y]);
  return {kind: 'matmul', ms};
}

async function times(repeats: number, body: () => Promise<void>): Promise<number[]> {
  const list: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const begin = performance.now();
    await body();
    list.push(performance.now() - begin);
  }
  return list;
}

async function answer(request: Request): Promise<Answer<Request['kind']>> {
  if (request.kind === 'start') {
    const started = await start(request.setup);
    training = started.training;
    return {kind: 'ready', version: started.version};
  }
  if (!training) throw new Error(`${request.kind} was asked for before start`);
  return request.kind === 'steps' ? steps(training, request.count) : matmul(training, request.size, request.repeats);
}

let training: Training | null = null;
try {
  for await (const line of createInterface({input: process.stdin})) {
    process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line) as Request))}\n`);
  }
} catch (error) {
  console.error(describeError(error));
  process.exitCode = 1;
}
process.exit(); // the driver is gone or has heard enough
