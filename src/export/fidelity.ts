// How far an exported model is from what it was made of, by the logits of both on one text.
import {openModel} from '../downcycle/model-source.js';
import {startWalk, type Walk, type WalkText} from '../model/walk.js';
import {headLogits} from '../model/walk-head.js';
import {compileLayer, passLayer} from '../model/walk-layer.js';
import {ModelError} from '../util/errors.js';

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

/** Compares two models on a text; one layer of one of them is in memory at a time. The engine must have been started. */
export async function measureFidelity(source: string, exported: string, text: WalkText): Promise<Fidelity> {
  return compare(await logitsOf(source, text), await logitsOf(exported, text), text.tokens.length);
}

async function logitsOf(path: string, text: WalkText): Promise<Float32Array> {
  const {folder, architecture} = await openModel(path);
  let walk: Walk | null = null;
  try {
    walk = await startWalk(folder, architecture, text);
    const layer = compileLayer(walk);
    for (let l = 0; l < architecture.ffn.length; l++) {
      await walk.load(l);
      await passLayer(walk, layer);
    }
    return await headLogits(folder, walk, text);
  } finally {
    walk?.dispose();
    await folder.close();
  }
}

/** @throws ModelError if a logit is not finite: nothing could be said about the rest. */
function compare(expected: Float32Array, received: Float32Array, tokens: number): Fidelity {
  const V = expected.length / tokens;
  const largestLogit = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const limit = TOLERANCE * Math.max(1, largestLogit);
  let [max, sum, kl, same, beyond] = [0, 0, 0, 0, 0];
  for (let t = 0; t < tokens; t++) {
    const [p, q] = [expected.subarray(t * V, (t + 1) * V), received.subarray(t * V, (t + 1) * V)];
    let most = 0;
    for (let v = 0; v < V; v++) {
      const difference = Math.abs((p[v] as number) - (q[v] as number));
      if (!Number.isFinite(difference)) throw new ModelError(`A logit is ${p[v]}, of the export ${q[v]}.`);
      most = Math.max(most, difference);
      sum += difference;
    }
    max = Math.max(max, most);
    kl += divergence(p, q);
    same += likeliest(p) === likeliest(q) ? 1 : 0;
    beyond += most > limit ? 1 : 0;
  }
  return {
    tokens,
    maxLogitDifference: max,
    meanLogitDifference: sum / expected.length,
    largestLogit,
    kl: kl / tokens,
    sameToken: same / tokens,
    beyond: beyond / tokens,
  };
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
