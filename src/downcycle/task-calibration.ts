// Calibration text by tasks that documents name themselves. Documents are taken in the order of their digests: which are
// taken depends on the text alone, not on files or their order, and one that is read late seldom needs to be encoded.
import type {TaskDocument} from '../data/task.js';
import {DataError} from '../util/errors.js';
import {joinInts} from '../util/join.js';
import {type Calibration, calibrationFrom} from './calibration.js';
import type {ProfileOptions} from './profile-options.js';

/** How many samples of how many tokens each task has. */
type Sizes = Pick<ProfileOptions, 'samplesPerTask' | 'tokensPerSample'>;

/** A document as it may be used: the beginning of it, as long as a sample. */
interface Candidate {
  readonly digest: string;
  readonly ids: Int32Array;
}

/**
 * Samples of every task, each from the beginning of a document on; where it is shorter than a sample the next of its task
 * goes on. A text that comes twice counts once. Tasks are in the order of their names.
 *
 * Of each task no more is kept than its samples need.
 * @throws DataError naming the tasks that have fewer samples than `samplesPerTask`.
 */
export async function readTaskCalibration(
  documents: AsyncIterable<TaskDocument>,
  encode: (text: string) => Int32Array,
  sizes: Sizes,
): Promise<Calibration> {
  const candidates = new Map<string, Candidate[]>();
  for await (const {task, text, digest} of documents) {
    const known = candidates.get(task) ?? [];
    candidates.set(task, known);
    if (isNeeded(known, digest, sizes)) {
      insert(known, {digest, ids: encode(text).slice(0, sizes.tokensPerSample)});
      known.length = Math.min(known.length, numNeeded(known, sizes));
    }
  }
  const names = [...candidates.keys()].sort();
  const samples = names.map((name) => samplesOf(candidates.get(name) ?? [], sizes));
  requireEnough(names, samples, sizes);
  return calibrationFrom(names, samples.flat(), sizes);
}

/** Whether a document comes before the last of those that make all samples, and is not among them. */
function isNeeded(known: readonly Candidate[], digest: string, sizes: Sizes): boolean {
  const last = known.at(-1);
  if (last && numNeeded(known, sizes) <= known.length && digest >= last.digest) return false;
  return !known.some((one) => one.digest === digest);
}

function insert(known: Candidate[], candidate: Candidate): void {
  const place = known.findIndex(({digest}) => digest > candidate.digest);
  known.splice(place < 0 ? known.length : place, 0, candidate);
}

/** How many of the documents, in order, make all samples; infinitely many if all of them do not. */
function numNeeded(known: readonly Candidate[], {samplesPerTask, tokensPerSample}: Sizes): number {
  let [samples, filled] = [0, 0];
  for (const [i, {ids}] of known.entries()) {
    filled += ids.length;
    if (filled < tokensPerSample) continue;
    [samples, filled] = [samples + 1, 0];
    if (samples === samplesPerTask) return i + 1;
  }
  return Number.POSITIVE_INFINITY;
}

function samplesOf(known: readonly Candidate[], {tokensPerSample}: Sizes): Int32Array[] {
  const samples: Int32Array[] = [];
  let parts: Int32Array[] = [];
  for (const {ids} of known) {
    parts.push(ids);
    const sample = joinInts(parts);
    if (sample.length < tokensPerSample) continue;
    samples.push(sample.slice(0, tokensPerSample));
    parts = [];
  }
  return samples;
}

/** Tasks that an error names before it stops. */
const MOST_NAMED = 5;

function requireEnough(
  names: readonly string[],
  samples: readonly (readonly Int32Array[])[],
  {samplesPerTask, tokensPerSample}: Sizes,
): void {
  const short = names.flatMap((name, task) => {
    const count = samples[task]?.length ?? 0;
    return count < samplesPerTask ? [`${name} (${count})`] : [];
  });
  if (short.length === 0) return;
  const more = short.length > MOST_NAMED ? ` and ${short.length - MOST_NAMED} more` : '';
  throw new DataError(
    `Tasks with fewer than the ${samplesPerTask} samples of ${tokensPerSample} tokens that profile.samplesPerTask asks for: ${short.slice(0, MOST_NAMED).join(', ')}${more}.`,
    {hint: 'Lower samplesPerTask or tokensPerSample, give these tasks more text, or leave their records out.'},
  );
}
