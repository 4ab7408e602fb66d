// A decoder in plain JavaScript and float64, one token and one expert at a time: the statement of what a model computes.
import {
  type Architecture,
  type FfnLayout,
  type InnerLayout,
  type Routing,
  SOFTMAX_ROUTING,
} from '../../src/model/architecture.js';

type Vector = readonly number[];

type Weights = Readonly<Record<string, {readonly values: ArrayLike<number>}>>;

/** A model with its parameters by path, row-major, in our layout. */
export interface ReferenceModel {
  readonly architecture: Architecture;
  readonly weights: Weights;
}

/** Logits [tokens][vocab] of one sequence. */
export function referenceLogits({architecture, weights}: ReferenceModel, tokens: Vector): Vector[] {
  const {vocab, width, normEps, norm: kind, multipliers, ffn, routing} = architecture;
  const norm = (x: Vector, path: string): Vector =>
    kind.kind === 'layer' ? layerNorm(x, normEps) : rmsNorm(x, weights[path]!.values, normEps);
  const branch = (x: Vector[], path: string, fn: (x: Vector[]) => Vector[]): Vector[] => {
    const normed = (some: Vector[]): Vector[] => some.map((one) => norm(one, path));
    const y = kind.placement === 'before' ? fn(normed(x)) : normed(fn(x));
    return x.map((one, t) => add(one, scale(y[t]!, multipliers.residual)));
  };
  let x = tokens.map((id) => scale(rowOf(weights.embed!.values, id, width), multipliers.embedding));
  for (const [l, layout] of ffn.entries()) {
    x = branch(x, `layers.${l}.attentionNorm`, (y) => attention(y, weights, l, architecture));
    x = branch(x, `layers.${l}.ffnNorm`, (y) => y.map((one) => feedForward(one, weights, l, layout, routing)));
  }
  const head = (weights.head ?? weights.embed!).values;
  const logitsOf = (h: Vector): Vector =>
    Array.from({length: vocab}, (_, v) => dotRow(h, head, v) / multipliers.logitsDivisor);
  return x.map((one) => logitsOf(norm(one, 'norm')));
}

/** Mean next-token loss of one sequence. */
export function referenceLoss(model: ReferenceModel, tokens: Vector): number {
  const losses = referenceLogits(model, tokens.slice(0, -1)).map((logits, t) => {
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    return Math.log(sum) - logits[tokens[t + 1]!]!;
  });
  return losses.reduce((a, b) => a + b, 0) / losses.length;
}

function attention(x: Vector[], weights: Weights, l: number, architecture: Architecture): Vector[] {
  const {heads, kvHeads, headDim, ropeTheta, multipliers, slidingWindow} = architecture;
  const factor = multipliers.attention ?? 1 / Math.sqrt(headDim);
  const [q, k, v] = ['q', 'k', 'v'].map((name) => x.map((one) => projection(one, weights, l, name, architecture)));
  const headOf = (one: Vector, h: number): Vector => one.slice(h * headDim, (h + 1) * headDim);
  return x.map((_, t) => {
    const first = Math.max(0, t + 1 - (slidingWindow ?? t + 1));
    const mixed = Array.from({length: heads}, (_, h) => {
      const kv = Math.floor((h * kvHeads) / heads);
      const query = rotate(headOf(q![t]!, h), t, ropeTheta);
      const keys = k!.slice(first, t + 1).map((key, s) => rotate(headOf(key, kv), first + s, ropeTheta));
      const shares = softmax(keys.map((key) => dot(query, key) * factor));
      return shares.map((share, s) => scale(headOf(v![first + s]!, kv), share)).reduce(add);
    });
    return linear(mixed.flat(), weights, `layers.${l}.attention.o`);
  });
}

/** Queries, keys or values of a token before they are turned. */
function projection(
  x: Vector,
  weights: Weights,
  l: number,
  name: string,
  {headDim, qkvClip, normEps}: Architecture,
): Vector {
  const limit = qkvClip ?? Number.POSITIVE_INFINITY;
  const y = linear(x, weights, `layers.${l}.attention.${name}`).map((one) => Math.min(limit, Math.max(-limit, one)));
  const weight = weights[`layers.${l}.attention.${name}Norm`]?.values;
  if (!weight) return y;
  if (weight.length === y.length) return rmsNorm(y, weight, normEps);
  return Array.from({length: y.length / headDim}, (_, h) => y.slice(h * headDim, (h + 1) * headDim)).flatMap((head) =>
    rmsNorm(head, weight, normEps),
  );
}

function linear(x: Vector, weights: Weights, path: string): Vector {
  const y = times(x, weights[path]!.values);
  const bias = weights[`${path}Bias`]?.values;
  return bias ? y.map((one, i) => one + bias[i]!) : y;
}

function feedForward(x: Vector, weights: Weights, l: number, layout: FfnLayout, routing: Routing): Vector {
  const path = `layers.${l}.ffn`;
  const matrix = (name: string): ArrayLike<number> => weights[`${path}.${name}`]!.values;
  if (layout.kind === 'dense') return glu(x, matrix('gate'), matrix('up'), matrix('down'));
  const size = x.length * layout.expertWidth;
  const part = (name: string, e: number): number[] =>
    Array.from(matrix(`experts.${name}`)).slice(e * size, (e + 1) * size);
  const bias = weights[`${path}.bias`]?.values;
  const expertBias = weights[`${path}.expertBias`]?.values;
  const inside = (e: number): Vector[] => (layout.inner ? [insideExpert(x, matrix, e, layout.inner)] : []);
  const scales = weights[`${path}.scale`]?.values;
  const logits = routerLogits(x, layout, matrix);
  const results = choose(logits, bias, layout.topK, routing, scales).map(({expert, weight}) => {
    const y = glu(x, part('gate', expert), part('up', expert), part('down', expert));
    const biased = expertBias ? add(y, rowOf(expertBias, expert, x.length)) : y;
    return scale([biased, ...inside(expert)].reduce(add), weight);
  });
  if (layout.sharedWidth > 0) {
    const gate = layout.sharedGate ? sigmoid(times(x, matrix('sharedGate'))[0]!) : 1;
    results.push(scale(glu(x, matrix('shared.gate'), matrix('shared.up'), matrix('shared.down')), gate));
  }
  return results.reduce(add);
}

/** What the experts inside expert `e` that a token chooses give. */
function insideExpert(
  x: Vector,
  matrix: (name: string) => ArrayLike<number>,
  e: number,
  {experts, topK, expertWidth, weight}: InnerLayout,
): Vector {
  const part = (name: string, at: number, size: number): number[] =>
    Array.from(matrix(`inner.${name}`)).slice(at * size, (at + 1) * size);
  const logits = routerLogits(x, {router: 'representative', experts}, (name) => part(name, e, x.length * experts));
  const order = weight === 'one' ? 'topk-then-score' : 'score-then-topk';
  const chosen = choose(logits, undefined, topK, {...SOFTMAX_ROUTING, order, weight});
  return chosen
    .map((one) => {
      const own = (name: string): number[] => part(`experts.${name}`, e * experts + one.expert, x.length * expertWidth);
      return scale(glu(x, own('gate'), own('up'), own('down')), one.weight);
    })
    .reduce(add);
}

type RouterLayout = Pick<Extract<FfnLayout, {kind: 'moe'}>, 'router' | 'experts' | 'temperature' | 'rank'>;

function routerLogits(
  x: Vector,
  {router: kind, experts, temperature = 1, rank = 1}: RouterLayout,
  matrix: (name: string) => ArrayLike<number>,
): Vector {
  const first = times(x, matrix('router'));
  const lengthOf = (some: Vector): number => Math.sqrt(dot(some, some));
  switch (kind) {
    case 'linear':
      return first;
    case 'representative': {
      const up = times(x, matrix('routerUp'));
      return first.map((value, e) => Math.abs(value * sigmoid(value) * up[e]!));
    }
    case 'mlp':
      return times(first.map(Math.tanh), matrix('routerOut'));
    case 'cosine': {
      const column = (e: number): Vector => x.map((_, d) => matrix('router')[d * experts + e]!);
      return first.map((value, e) => value / (lengthOf(x) * lengthOf(column(e)) * temperature));
    }
    case 'autonomy':
      return Array.from({length: experts}, (_, e) => lengthOf(first.slice(e * rank, (e + 1) * rank)));
  }
}

/** The experts of one token with their weights. */
function choose(
  logits: Vector,
  bias: ArrayLike<number> | undefined,
  topK: number,
  {score, order, renormalise, scale: factor, weight, topP = Infinity, reach}: Routing,
  scales?: ArrayLike<number>,
): {readonly expert: number; readonly weight: number}[] {
  const scoresOf = (some: Vector): Vector => (score === 'softmax' ? softmax(some) : some.map(sigmoid));
  const scores = scoresOf(logits);
  const ranked = (order === 'score-then-topk' ? scores : logits).map((value, e) => value + (bias?.[e] ?? 0));
  const best = [...ranked.keys()].sort((a, b) => ranked[b]! - ranked[a]! || a - b).slice(0, topK);
  const before = (k: number): number => best.slice(0, k).reduce((sum, e) => sum + scores[e]!, 0);
  const experts = best.filter((_, k) => before(k) < topP);
  const scored = (): Vector =>
    order === 'score-then-topk' ? experts.map((e) => scores[e]!) : scoresOf(experts.map((e) => logits[e]!));
  const chosen =
    reach === undefined ? scored() : experts.map((_, k) => reached(logits, experts.slice(0, k + 1), reach));
  const total = renormalise ? chosen.reduce((a, b) => a + b, 0) : 1;
  return experts.map((expert, k) => {
    const own = chosen[k]! / total;
    const words = {score: own, one: 1, 'one-plus-scaled': 1 + (scales?.[expert] ?? Number.NaN) * own};
    return {expert, weight: factor * words[weight]};
  });
}

/** The softmax of the last of these experts among those that are not before it, and near enough to the largest of them. */
function reached(logits: Vector, experts: readonly number[], reach: number): number {
  const left = [...logits.keys()].filter((e) => !experts.slice(0, -1).includes(e));
  const largest = Math.max(...left.map((e) => logits[e]!));
  const near = left.filter((e) => largest - logits[e]! <= reach * Math.max(Math.abs(logits[e]!), largest));
  return softmax(near.map((e) => logits[e]!))[near.indexOf(experts.at(-1)!)]!;
}

function glu(x: Vector, gate: ArrayLike<number>, up: ArrayLike<number>, down: ArrayLike<number>): Vector {
  const [a, b] = [times(x, gate), times(x, up)];
  return times(
    a.map((value, f) => value * sigmoid(value) * b[f]!),
    down,
  );
}

/** x [n] times a row-major matrix [n, m]. */
function times(x: Vector, matrix: ArrayLike<number>): number[] {
  const m = matrix.length / x.length;
  return Array.from({length: m}, (_, j) => x.reduce((sum, value, i) => sum + value * matrix[i * m + j]!, 0));
}

function rmsNorm(x: Vector, weight: ArrayLike<number>, eps: number): Vector {
  const length = Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((value, i) => (value / length) * weight[i]!);
}

function layerNorm(x: Vector, eps: number): Vector {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const centred = x.map((value) => value - mean);
  const deviation = Math.sqrt(dot(centred, centred) / x.length + eps);
  return centred.map((value) => value / deviation);
}

/** Pairs (j, j + d/2) turned by position · theta^(−2j/d). */
function rotate(x: Vector, position: number, theta: number): Vector {
  const half = x.length / 2;
  const angle = (j: number): number => position * theta ** (-(j % half) / half);
  const other = (j: number): number => (j < half ? -x[j + half]! : x[j - half]!);
  return x.map((value, j) => value * Math.cos(angle(j)) + other(j) * Math.sin(angle(j)));
}

function softmax(x: Vector): number[] {
  const exponents = x.map((value) => Math.exp(value - Math.max(...x)));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / sum);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function rowOf(table: ArrayLike<number>, row: number, width: number): Vector {
  return Array.from({length: width}, (_, i) => table[row * width + i]!);
}

function dotRow(x: Vector, table: ArrayLike<number>, row: number): number {
  return x.reduce((sum, value, i) => sum + value * table[row * x.length + i]!, 0);
}

function dot(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

function add(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + b[i]!);
}

function scale(x: Vector, factor: number): Vector {
  return x.map((value) => value * factor);
}
