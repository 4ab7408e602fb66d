// How far an exported model is from what it was made of, by the logits of both on one text.
import {openModel} from '../downcycle/model-source.js';
import {startWalk, type WalkText} from '../model/walk.js';
import {openHead} from '../model/walk-head.js';
import {compileLayer, passLayer} from '../model/walk-layer.js';
import {ModelError} from '../util/errors.js';
import {joinFloats} from '../util/join.js';

/** What was measured, over all positions of a text. */
export interface Fidelity {
  readonly tokens: number;
  readonly maxLogitDifference: number;
  readonly meanLogitDifference: number;
  /** Of magnitude, of the source. */
  readonly largestLogit: number;
  /** KL divergence of the export from its source, nats a token. */
  readonly kl: number;
  /** Share of positions where both hold the same token for the likeliest. */
  readonly sameToken: number;
  /** Share of positions with a logit that differs by more than {@link TOLERANCE} of the largest: other experts were chosen. */
  readonly beyond: number;
}

/** What sums in another order differ by, as a share of the largest logit; that of the proof of conversion. */
const TOLERANCE = 5e-5;

/** Positions whose logits are in memory at once, of both models: a vocabulary may be large. */
const ROWS = 64;

/**
 * Compares two models on a text. One layer of one of them is in memory at a time, then the heads of both with the logits of a
 * few positions. The engine must have been started.
 *
 * @throws ModelError if a folder is damaged, or a logit is not finite: nothing could be said about the rest.
 */
export async function measureFidelity(source: string, exported: string, text: WalkText): Promise<Fidelity> {
  const expected = await walkThrough(source, text);
  try {
    const received = await walkThrough(exported, text);
    try {
      return await compare(expected, received, text.tokens.length);
    } finally {
      received.dispose();
    }
  } finally {
    expected.dispose();
  }
}

/** A model after its last layer. */
interface Walked {
  /** Logits of positions [begin, end), [end − begin, V]. */
  logits(begin: number, end: number): Promise<Float32Array>;
  dispose(): void;
}

async function walkThrough(path: string, text: WalkText): Promise<Walked> {
  const {folder, architecture} = await openModel(path);
  try {
    const walk = await startWalk(folder, architecture, text);
    try {
      const layer = compileLayer(walk);
      for (let l = 0; l < architecture.ffn.length; l++) {
        await walk.load(l);
        await passLayer(walk, layer);
      }
      walk.release();
      const head = await openHead(folder, walk, text);
      const hidden = joinFloats(walk.batches);
      const {width: D} = architecture;
      return {logits: (begin, end) => head.logits(hidden.subarray(begin * D, end * D)), dispose: () => walk.dispose()};
    } catch (error) {
      walk.dispose();
      throw error;
    }
  } finally {
    await folder.close();
  }
}

async function compare(expected: Walked, received: Walked, tokens: number): Promise<Fidelity> {
  const rows: RowDifference[] = [];
  for (let begin = 0; begin < tokens; begin += ROWS) {
    const end = Math.min(begin + ROWS, tokens);
    const [p, q] = [await expected.logits(begin, end), await received.logits(begin, end)];
    const V = p.length / (end - begin);
    for (let t = 0; t < end - begin; t++)
      rows.push(differenceOf(p.subarray(t * V, (t + 1) * V), q.subarray(t * V, (t + 1) * V)));
  }
  const mean = (of: (row: RowDifference) => number): number => rows.reduce((sum, row) => sum + of(row), 0) / tokens;
  const largestLogit = Math.max(...rows.map(({largest}) => largest));
  const limit = TOLERANCE * Math.max(1, largestLogit);
  return {
    tokens,
    maxLogitDifference: Math.max(...rows.map(({max}) => max)),
    meanLogitDifference: mean((row) => row.mean),
    largestLogit,
    kl: mean((row) => row.kl),
    sameToken: mean((row) => (row.isSame ? 1 : 0)),
    beyond: mean((row) => (row.max > limit ? 1 : 0)),
  };
}

/** How far the logits of one position are from those of another model. */
interface RowDifference {
  readonly max: number;
  readonly mean: number;
  readonly largest: number;
  readonly kl: number;
  readonly isSame: boolean;
}

function differenceOf(p: Float32Array, q: Float32Array): RowDifference {
  let [max, sum, largest] = [0, 0, 0];
  for (let v = 0; v < p.length; v++) {
    const difference = Math.abs((p[v] as number) - (q[v] as number));
    if (!Number.isFinite(difference)) throw new ModelError(`A logit is ${p[v]}, of the export ${q[v]}.`);
    max = Math.max(max, difference);
    sum += difference;
    largest = Math.max(largest, Math.abs(p[v] as number));
  }
  return {max, mean: sum / p.length, largest, kl: divergence(p, q), isSame: likeliest(p) === likeliest(q)};
}

/** KL(p ‖ q) of the softmax of two rows of logits; rounding never makes it negative. */
function divergence(p: Float32Array, q: Float32Array): number {
  const [atP, atQ] = [logSum(p), logSum(q)];
  let sum = 0;
  for (let v = 0; v < p.length; v++) {
    const [x, y] = [(p[v] as number) - atP, (q[v] as number) - atQ];
    sum += Math.exp(x) * (x - y);
  }
  return Math.max(0, sum);
}

function logSum(row: Float32Array): number {
  const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return most + Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

function likeliest(row: Float32Array): number {
  let best = 0;
  for (let v = 1; v < row.length; v++) if ((row[v] as number) > (row[best] as number)) best = v;
  return best;
}
