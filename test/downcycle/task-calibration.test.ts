import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {digestOf} from '../../src/data/prepare.js';
import type {TaskDocument} from '../../src/data/task.js';
import {readTaskCalibration} from '../../src/downcycle/task-calibration.js';
import {DataError} from '../../src/util/errors.js';
import {createRng, shuffle} from '../../src/util/rng.js';

/** A document whose tokens are the codes of its characters. */
const documentOf = (task: string, text: string): TaskDocument => ({task, text, digest: digestOf(text)});
const encode = (text: string): Int32Array => Int32Array.from(text, (letter) => letter.charCodeAt(0));

async function* stream(documents: readonly TaskDocument[]): AsyncGenerator<TaskDocument> {
  for (const document of documents) yield await Promise.resolve(document);
}

const calibrate = (documents: readonly TaskDocument[], samplesPerTask: number, tokensPerSample: number) =>
  readTaskCalibration(stream(documents), encode, {samplesPerTask, tokensPerSample});

/** What the definition says, with all documents at hand. */
function expected(documents: readonly TaskDocument[], samplesPerTask: number, tokensPerSample: number): number[][] {
  return [...new Set(documents.map(({task}) => task))].sort().flatMap((name) => {
    const own = documents.filter(({task}) => task === name);
    const texts = new Map(own.map(({digest, text}) => [digest, text]));
    const samples: number[][] = [];
    let sample: number[] = [];
    for (const digest of [...texts.keys()].sort()) {
      sample = [...sample, ...encode(texts.get(digest)!)];
      if (sample.length >= tokensPerSample) samples.push(sample.slice(0, tokensPerSample));
      if (sample.length >= tokensPerSample) sample = [];
    }
    return samples.slice(0, samplesPerTask);
  });
}

describe('readTaskCalibration', () => {
  it('takes documents in the order of their digests until all samples are full, in whatever order they come', async () => {
    const document = fc.record({task: fc.constantFrom('a', 'b'), text: fc.string({minLength: 1, maxLength: 12})});
    await fc.assert(
      fc.asyncProperty(fc.array(document, {minLength: 80, maxLength: 120}), fc.nat(), async (list, seed) => {
        const documents = list.map(({task, text}) => documentOf(task, text));
        const order = shuffle(Int32Array.from(documents.keys()), createRng(seed, 'order'));
        const calibration = await calibrate(
          Array.from(order, (i) => documents[i]!),
          3,
          8,
        ).catch((error: unknown) => error as DataError);
        const samples = expected(documents, 3, 8);
        if (calibration instanceof DataError) return expect(samples.length).toBeLessThan(6);
        expect(Array.from(calibration.tokens)).toEqual(samples.flat());
        expect(calibration.tasks).toEqual(['a', 'b']);
        expect(Array.from(calibration.taskOfSample_J)).toEqual([0, 0, 0, 1, 1, 1]);
      }),
      {numRuns: 50},
    );
  });

  it('encodes few of the documents that come when all samples are full', async () => {
    let encoded = 0;
    const documents = Array.from({length: 5000}, (_, i) => documentOf('a', `document number ${i}`));
    const count = (text: string): Int32Array => {
      encoded++;
      return encode(text);
    };
    await readTaskCalibration(stream(documents), count, {samplesPerTask: 4, tokensPerSample: 8});
    expect(encoded).toBeLessThan(100); // about 4·ln(5000/4)
  });

  it('counts a text once that comes twice', async () => {
    const documents = ['abcdef', 'abcdef', 'ghijkl'].map((text) => documentOf('a', text));
    const {tokens} = await calibrate(documents, 2, 4);
    expect(new Set([String(tokens.subarray(0, 4)), String(tokens.subarray(4))]).size).toBe(2);
    await expect(calibrate(documents, 3, 4)).rejects.toThrow('a (2)');
  });

  it('names every task that has too few samples, and how many it has', async () => {
    const texts = (count: number): string[] => Array.from({length: count}, (_, i) => `text ${i}`);
    const documents = [
      ...texts(3).map((text) => documentOf('law', text)),
      ...texts(9).map((text) => documentOf('code', text)),
      documentOf('math', 'short'),
    ];
    const refused = calibrate(documents, 5, 6);
    await expect(refused).rejects.toThrow(DataError);
    await expect(refused).rejects.toThrow(
      'Tasks with fewer than the 5 samples of 6 tokens that profile.samplesPerTask asks for: law (3), math (0).',
    );
    const many = Array.from({length: 8}, (_, i) => documentOf(`t${i}`, `a text ${i}`));
    await expect(calibrate(many, 2, 4)).rejects.toThrow('t0 (1), t1 (1), t2 (1), t3 (1), t4 (1) and 3 more.');
  });
});
