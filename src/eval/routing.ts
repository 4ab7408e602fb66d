// What routers do with texts: which experts tokens use, which ones together, and which texts use which. G texts, E experts.
import type {MoeLayout} from '../model/architecture.js';

/** What was counted in one layer. */
export interface RoutingCounts {
  /** The layer of the model, from 0. */
  readonly layer: number;
  readonly topK: number;
  /** Tokens of each text that use each expert, [G][E]. */
  readonly use_GE: readonly Float64Array[];
  /** Tokens that use both of two experts, [E][E]; on the diagonal those that use the one. */
  readonly pair_EE: readonly Float64Array[];
}

/** Two experts that tokens use together more often than chance has it. */
export interface ExpertPair {
  readonly experts: readonly [number, number];
  readonly tokens: number;
  /** How many times as often as if each were chosen by itself. */
  readonly lift: number;
}

/** What the router of one layer does. */
export interface LayerRouting {
  /** The layer of the model, from 0. */
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  /** Share of the tokens that use each expert, [E]; they sum to the experts of a token, topK but where a top p leaves some out. */
  readonly load: readonly number[];
  /** Entropy of the load over that of an even one: 1 if all experts get as much, 0 if one gets all. */
  readonly entropy: number;
  /** The largest load over the mean one. */
  readonly peak: number;
  /** Experts that no token uses. */
  readonly unused: readonly number[];
  /** Tokens that use both of two experts, [E][E], and on the diagonal the one. */
  readonly together: readonly (readonly number[])[];
  /** `P(i and j) / (P(i) P(j))`, [E][E]: 1 where experts have nothing to do with each other; null for those not used. */
  readonly lift: readonly (readonly (number | null)[])[];
  /** Those of the largest lift, the largest first, of pairs that chance alone would bring together often enough to tell. */
  readonly pairs: readonly ExpertPair[];
  /** Of what each text uses, the share of each expert, [G][E]; rows sum to 1. */
  readonly share: readonly (readonly number[])[];
  /** 0 if all texts use experts alike, 1 if no two share any: Jensen-Shannon divergence over `ln G`; null for one text. */
  readonly specialisation: number | null;
}

/** What the routers of a mixture did on texts. */
export interface RoutingStatistics {
  /** Names of the texts, and their tokens that were routed: each once, but the last. */
  readonly texts: readonly {readonly name: string; readonly tokens: number}[];
  /** The layers that have experts. */
  readonly layers: readonly LayerRouting[];
}

/** Pairs that are named in a layer. */
const MOST_PAIRS = 5;
/** Tokens that chance must give a pair for its lift to count: below that one token more or less changes everything. */
const LEAST_EXPECTED = 5;

/** Counts of nothing yet. */
export function emptyCounts(layer: number, {experts: E, topK}: MoeLayout, numTexts: number): RoutingCounts {
  const rows = (count: number): Float64Array[] => Array.from({length: count}, () => new Float64Array(E));
  return {layer, topK, use_GE: rows(numTexts), pair_EE: rows(E)};
}

/**
 * Counts some tokens, in O(T·K²).
 *
 * @param expert_TK int32 [T, K], E for none.
 * @param text_T which text each token is of, or −1 for a token that does not count.
 */
export function countTokens(
  {topK: K, use_GE, pair_EE}: RoutingCounts,
  expert_TK: Int32Array,
  text_T: Int32Array,
): void {
  for (const [t, text] of text_T.entries()) {
    const use_E = use_GE[text];
    if (!use_E) continue;
    for (let i = t * K; i < (t + 1) * K; i++) {
      const row_E = pair_EE[expert_TK[i] as number];
      if (!row_E) continue;
      increment(use_E, expert_TK[i] as number);
      for (let j = t * K; j < (t + 1) * K; j++) increment(row_E, expert_TK[j] as number);
    }
  }
}

/** One more at a place; a place outside, that of no expert, is left alone. */
function increment(counts: Float64Array, place: number): void {
  if (place < counts.length) counts[place] = (counts[place] as number) + 1;
}

/** What counts of `tokens` tokens say of a layer. */
export function layerRouting({layer, topK, use_GE, pair_EE}: RoutingCounts, tokens: number): LayerRouting {
  const use_E = pair_EE.map((row_E, e) => row_E[e] as number);
  const share = use_GE.map((row_E) => normalised(row_E));
  const lift = pair_EE.map((row_E, i) =>
    Array.from(row_E, (both, j) => liftOf(both, use_E[i] as number, use_E[j] as number, tokens)),
  );
  return {
    layer,
    experts: use_E.length,
    topK,
    load: use_E.map((use) => use / tokens),
    entropy: use_E.length > 1 ? entropy(normalised(use_E)) / Math.log(use_E.length) : 1,
    peak: (Math.max(...use_E) * use_E.length) / sum(use_E),
    unused: use_E.flatMap((use, e) => (use === 0 ? [e] : [])),
    together: pair_EE.map((row_E) => [...row_E]),
    lift,
    pairs: topPairs(pair_EE, lift, tokens),
    share,
    specialisation: share.length > 1 ? divergence(share) / Math.log(share.length) : null,
  };
}

function liftOf(both: number, one: number, other: number, tokens: number): number | null {
  return one > 0 && other > 0 ? (both * tokens) / (one * other) : null;
}

function topPairs(
  pair_EE: readonly Float64Array[],
  lifts: LayerRouting['lift'],
  tokens: number,
): readonly ExpertPair[] {
  const found: ExpertPair[] = [];
  for (const [i, row_E] of pair_EE.entries()) {
    for (let j = i + 1; j < row_E.length; j++) {
      const lift = lifts[i]?.[j] ?? 0;
      const expected = ((row_E[i] as number) * (pair_EE[j]?.[j] as number)) / tokens;
      if (lift > 1 && expected >= LEAST_EXPECTED) found.push({experts: [i, j], tokens: row_E[j] as number, lift});
    }
  }
  return found.sort((a, b) => b.lift - a.lift).slice(0, MOST_PAIRS);
}

/** Jensen-Shannon divergence of distributions of equal weight, in nats: the entropy of their mean less the mean of theirs. */
function divergence(rows: readonly (readonly number[])[]): number {
  const mean = (rows[0] ?? []).map((_, e) => sum(rows.map((row) => row[e] as number)) / rows.length);
  return Math.max(0, entropy(mean) - sum(rows.map(entropy)) / rows.length);
}

/** In nats. */
function entropy(shares: readonly number[]): number {
  return -sum(shares.map((share) => (share > 0 ? share * Math.log(share) : 0)));
}

function normalised(values: ArrayLike<number>): number[] {
  const row = Array.from(values);
  const total = sum(row);
  return row.map((value) => value / total);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
