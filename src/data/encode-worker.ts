// Encodes samples in a thread of its own, with a tokenizer of its own; started by encode-pool.ts.
import {parentPort, workerData} from 'node:worker_threads';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {encodeBatch, packBatch} from './encode-batch.js';
import type {Answer, Order, WorkerSetup} from './encode-pool.js';

const {folder, fingerprint, options} = workerData as WorkerSetup;
const tokenizer = await loadTokenizer(folder);
if (tokenizer.fingerprint !== fingerprint) throw new Error(`${folder}: the tokenizer has changed`);

parentPort?.on('message', ({id, samples}: Order) => {
  const {answer, moved} = answerTo(id, samples);
  parentPort?.postMessage(answer, moved);
});

function answerTo(id: number, samples: Order['samples']): {answer: Answer; moved: ArrayBuffer[]} {
  try {
    const batch = packBatch(encodeBatch(tokenizer, samples, options));
    return {
      answer: {id, batch},
      moved: [batch.ids.buffer, ...(batch.mask ? [batch.mask.buffer] : [])] as ArrayBuffer[],
    };
  } catch {
    return {answer: {id, batch: null}, moved: []}; // the error is found again where it can be told
  }
}
