import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {setWasmPaths} from '@tensorflow/tfjs-backend-wasm';
import {EnvironmentError} from '../../util/errors.js';
import * as tf from '../tfjs.js';
import {registerKernels} from './kernel/register.js';

/** Starts tfjs's WebAssembly backend with the kernels it lacks. */
export async function startWasm(): Promise<void> {
  const entry = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm');
  setWasmPaths(join(dirname(entry), '/'));
  registerKernels();
  if (await withoutNewHandlers(() => tf.setBackend('wasm'))) return;
  throw new EnvironmentError('The WebAssembly engine could not be started.', {
    hint: 'Run `npm ci --ignore-scripts` again; its files seem to be missing.',
  });
}

/** Emscripten's module throws every uncaught error again, with its own source around it: its handlers are taken off. */
async function withoutNewHandlers<T>(start: () => Promise<T>): Promise<T> {
  const before = EVENTS.map((event) => process.listeners(event as 'uncaughtException'));
  const result = await start();
  for (const [i, event] of EVENTS.entries()) {
    for (const listener of process.listeners(event as 'uncaughtException')) {
      if (!before[i]?.includes(listener)) process.removeListener(event, listener);
    }
  }
  return result;
}

const EVENTS = ['uncaughtException', 'unhandledRejection'] as const;
