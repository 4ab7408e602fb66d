// Plain float64 statements of what the trainer computes, from the papers.

/** A parameter and its moments. */
export interface AdamState {
  readonly value: readonly number[];
  readonly first: readonly number[];
  readonly second: readonly number[];
}

/** AdamW as algorithm 2 of Loshchilov and Hutter 2019 has it, one number after the other. */
export function referenceAdamW(
  {value, first, second}: AdamState,
  gradient: readonly number[],
  t: number,
  rates: {learningRate: number; weightDecay: number; betas: readonly [number, number]; eps: number},
): AdamState {
  const {learningRate, weightDecay, betas, eps} = rates;
  const m = first.map((before, i) => betas[0] * before + (1 - betas[0]) * gradient[i]!);
  const v = second.map((before, i) => betas[1] * before + (1 - betas[1]) * gradient[i]! ** 2);
  const moved = value.map((before, i) => {
    const mHat = m[i]! / (1 - betas[0] ** t);
    const vHat = v[i]! / (1 - betas[1] ** t);
    return before - learningRate * (mHat / (Math.sqrt(vHat) + eps) + weightDecay * before);
  });
  return {value: moved, first: m, second: v};
}

/** Balance loss and z-loss of one layer, token by token. @param topK experts of a token, by the largest logits. */
export function referenceRouterLosses(
  logits: readonly (readonly number[])[],
  topK: number,
): {balance: number; z: number} {
  const E = logits[0]!.length;
  const count = new Array<number>(E).fill(0);
  const probability = new Array<number>(E).fill(0);
  let z = 0;
  for (const row of logits) {
    const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
    const ranked = row.map((logit, e) => ({logit, e})).sort((a, b) => b.logit - a.logit);
    for (const {e} of ranked.slice(0, topK)) count[e]! += 1;
    for (const [e, logit] of row.entries()) probability[e]! += Math.exp(logit) / sum;
    z += Math.log(sum) ** 2;
  }
  const T = logits.length;
  const terms = count.map((rows, e) => (rows / (T * topK)) * (probability[e]! / T));
  return {balance: E * terms.reduce((a, b) => a + b, 0), z: z / T};
}
