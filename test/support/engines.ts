import {expect, it} from 'vitest';
import {type CompileOptions, compile} from '../../src/engine/compile.js';
import {locateTensorFlow} from '../../src/engine/library/locate.js';
import {liveTensors} from '../../src/engine/memory.js';
import {startRuntime} from '../../src/engine/native/runtime.js';
import {type Engine, setEngine, startedEngine} from '../../src/engine/state.js';
import {flattenTree, type TensorTree} from '../../src/engine/tensor-tree.js';
import {startBackend} from '../../src/engine/tensorflow/backend.js';
import {startWasm} from '../../src/engine/wasm/backend.js';
import {type Host, sizeOf} from './host.js';
import * as tf from './tfjs.js';

/** How a law's functions are run. */
export type EngineName = 'tensorflow-eager' | 'tensorflow-compiled' | 'wasm';

/** A function of host values; `dispose` lets go of what was compiled. */
export interface HostFunction<T extends tf.Tensor[]> {
  (...inputs: HostInputs<T>): Promise<Host[]>;
  dispose(): void;
}

type HostInputs<T extends tf.Tensor[]> = {[K in keyof T]: Host};

/** An engine under test. Every run checks that it left no tensor behind. */
export interface TestEngine {
  readonly name: EngineName;
  /** Makes a function of tensors a function of host values, compiled where the engine compiles. */
  readonly prepare: <T extends tf.Tensor[]>(
    fn: (...inputs: T) => TensorTree,
    options?: CompileOptions,
  ) => HostFunction<T>;
  /** Runs a function once. */
  readonly run: <T extends tf.Tensor[]>(fn: (...inputs: T) => TensorTree, ...inputs: HostInputs<T>) => Promise<Host[]>;
}

interface Started {
  readonly engine: Engine;
  readonly backend: 'tensorflow' | 'wasm';
}

/** The processor, unless the laws are to be seen to hold on a GPU. */
const DEVICE = process.env.DOWNCYCLE_TEST_DEVICE === 'cuda' ? 'cuda' : 'cpu';

/** TensorFlow, or why there is none. Both engines live in one process; a law picks its own. */
const tensorflow: Started | string = await startTensorFlow();
const wasm: Started = await startWasmBeside();

/** Why the laws skip TensorFlow; null if they do not. */
export const missingTensorFlow: string | null = typeof tensorflow === 'string' ? tensorflow : null;

const NAMES: readonly EngineName[] = ['tensorflow-eager', 'tensorflow-compiled', 'wasm'];

/** Runs a law on TensorFlow op by op, on TensorFlow compiled, and on wasm. */
export function onEveryEngine(name: string, law: (engine: TestEngine) => void | Promise<void>): void {
  for (const engine of NAMES) onEngine(engine, name, law);
}

/** Runs a law on TensorFlow only; it skips with a line where there is none. */
export function onTensorFlow(name: string, law: (engine: TestEngine) => void | Promise<void>): void {
  onEngine('tensorflow-compiled', name, law);
}

/** Runs a law on one engine. */
export function onEngine(engine: EngineName, name: string, law: (engine: TestEngine) => void | Promise<void>): void {
  const started = engine === 'wasm' ? wasm : tensorflow;
  if (typeof started === 'string') it.skip(`${name} [${engine}: skipped, ${started}]`);
  else it(`${name} [${engine}]`, () => withEngine(engine, law));
}

/** Every engine that runs here, for laws that compare them. */
export function runningEngines(): readonly EngineName[] {
  return missingTensorFlow === null ? NAMES : ['wasm'];
}

/** Selects an engine, runs `fn` on it and selects again what product code had started. */
export async function withEngine<R>(name: EngineName, fn: (engine: TestEngine) => R | Promise<R>): Promise<R> {
  const started = name === 'wasm' ? wasm : tensorflow;
  if (typeof started === 'string') throw new Error(started);
  const [engine, backend] = [startedEngine(), tf.getBackend()];
  await select(started);
  try {
    return await fn(testEngine(name));
  } finally {
    if (engine) await select({engine, backend});
  }
}

async function select({engine, backend}: {readonly engine: Engine; readonly backend: string}): Promise<void> {
  await tf.setBackend(backend);
  setEngine(engine);
}

/** Runs `fn` and expects as many tensors alive after it as before, in tfjs and in the runtime below it. */
export async function expectNoLeak<R>(fn: () => R | Promise<R>): Promise<R> {
  const before = liveTensors();
  const result = await fn();
  expect(liveTensors(), 'tensors alive').toEqual(before);
  return result;
}

function testEngine(name: EngineName): TestEngine {
  const prepare: TestEngine['prepare'] = (fn, options) => hostFunction(name, fn, options);
  return {
    name,
    prepare,
    run: async (fn, ...inputs) => {
      const prepared = prepare(fn);
      try {
        return await prepared(...inputs);
      } finally {
        prepared.dispose();
      }
    },
  };
}

function hostFunction<T extends tf.Tensor[]>(
  name: EngineName,
  fn: (...inputs: T) => TensorTree,
  options?: CompileOptions,
): HostFunction<T> {
  const compiled = name === 'tensorflow-eager' ? eager(fn) : compile(fn, options);
  const call = (...inputs: HostInputs<T>): Promise<Host[]> =>
    expectNoLeak(async () => {
      const tensors = (inputs as readonly Host[]).map(toTensor);
      try {
        return await readAll(flattenTree(await compiled(...(tensors as T))));
      } finally {
        tf.dispose(tensors);
      }
    });
  return Object.assign(call, {dispose: () => compiled.dispose()});
}

function eager<T extends tf.Tensor[]>(fn: (...inputs: T) => TensorTree) {
  const run = async (...inputs: T): Promise<TensorTree> => tf.tidy(() => flattenTree(fn(...inputs)));
  return Object.assign(run, {dispose: () => undefined});
}

function toTensor({shape, dtype, values}: Host): tf.Tensor {
  if (values.length !== sizeOf(shape)) throw new Error(`[${shape.join()}] needs ${sizeOf(shape)} values`);
  return tf.tensor(values.slice(), [...shape], dtype);
}

async function readAll(tensors: readonly tf.Tensor[]): Promise<Host[]> {
  const results: Host[] = [];
  for (const tensor of tensors) {
    const {shape, dtype} = tensor;
    if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') throw new Error(`a result is ${dtype}`);
    results.push({shape, dtype, values: (await tensor.data()).slice()});
    tensor.dispose();
  }
  return results;
}

async function startTensorFlow(): Promise<Started | string> {
  const lookup = await locateTensorFlow({device: DEVICE});
  if (lookup.kind === 'missing') return `no TensorFlow: ${lookup.tried.join(' ')}`;
  const runtime = startRuntime(lookup.location.folder, {device: DEVICE});
  return {engine: {kind: 'tensorflow', backend: await startBackend(runtime)}, backend: 'tensorflow'};
}

async function startWasmBeside(): Promise<Started> {
  await startWasm();
  return {engine: {kind: 'wasm'}, backend: 'wasm'};
}
