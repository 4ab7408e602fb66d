import {Worker} from 'node:worker_threads';
import type {EncodeSampleOptions} from './encode.js';
import type {EncodedBatch} from './encode-batch.js';
import type {Sample} from './sample.js';

/** What a thread needs to encode as we do. */
export interface WorkerSetup {
  /** Of the tokenizer. */
  readonly folder: string;
  readonly fingerprint: string;
  readonly options: EncodeSampleOptions;
}

/** Samples to a thread. */
export interface Order {
  readonly id: number;
  readonly samples: readonly Sample[];
}

/** Of an order, null if it could not be encoded. */
export interface Answer {
  readonly id: number;
  readonly batch: EncodedBatch | null;
}

/** Threads that encode samples. */
export interface EncodePool {
  /** Null if the samples, or the thread, have failed. */
  encode(samples: readonly Sample[]): Promise<EncodedBatch | null>;
  close(): Promise<void>;
}

/** Starts `size` threads; orders go to them in turn. They end with the process, however it ends. */
export function startEncodePool(size: number, setup: WorkerSetup): EncodePool {
  const threads = Array.from({length: size}, () => startThread(setup));
  let turn = 0;
  return {
    encode: async (samples) => (await threads[turn++ % size]?.encode(samples)) ?? null,
    close: async () => {
      await Promise.all(threads.map((thread) => thread.close()));
    },
  };
}

function startThread(setup: WorkerSetup) {
  // Beside this file; while developing both are TypeScript, which the thread then has to be told how to read.
  const isSource = import.meta.url.endsWith('.ts');
  const worker = new Worker(new URL(isSource ? './encode-worker.ts' : './encode-worker.js', import.meta.url), {
    workerData: setup,
    ...(isSource && {execArgv: ['--import', 'tsx']}),
  });
  const waiting = new Map<number, (batch: EncodedBatch | null) => void>();
  let [count, isDead] = [0, false];
  const giveUp = (): void => {
    isDead = true;
    for (const resolve of waiting.values()) resolve(null);
    waiting.clear();
  };
  worker.on('message', ({id, batch}: Answer) => {
    waiting.get(id)?.(batch);
    waiting.delete(id);
  });
  worker.on('error', giveUp);
  worker.on('exit', giveUp);
  return {
    encode: (samples: readonly Sample[]): Promise<EncodedBatch | null> =>
      new Promise((resolve) => {
        if (isDead) return resolve(null);
        const order: Order = {id: count++, samples};
        waiting.set(order.id, resolve);
        worker.postMessage(order);
      }),
    close: () => worker.terminate(),
  };
}
