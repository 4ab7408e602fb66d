// How fast each pair of a head turns with the position, and how that is slowed down for contexts longer than a model was first
// trained on; as `modeling_rope_utils` of transformers has it.

/** How rotations are slowed down. */
export type RopeScaling =
  /** All by one factor (position interpolation, arXiv 2306.15595). */
  | {readonly kind: 'linear'; readonly factor: number}
  /** Slow ones by the factor, fast ones not, those between in part (Llama 3.1, arXiv 2407.21783). */
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      /** Turns within the first context below which a rotation is slow, and from which it is fast. */
      readonly lowTurns: number;
      readonly highTurns: number;
      readonly firstContext: number;
    }
  /** The same along the axis of pairs, and cosines and sines grow by `amplitude` (YaRN, arXiv 2309.00071). */
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly slowTurns: number;
      readonly fastTurns: number;
      readonly firstContext: number;
      readonly amplitude: number;
      /** Whether the pairs where slow and fast begin are whole numbers. */
      readonly truncate: boolean;
    };

/** Radians a position of each pair of a head, float32 [d/2]. */
export function ropeFrequencies(headDim: number, theta: number, scaling?: RopeScaling): Float32Array {
  const plain = Float32Array.from({length: headDim / 2}, (_, j) => 1 / Math.fround(theta ** ((2 * j) / headDim)));
  switch (scaling?.kind) {
    case undefined:
      return plain;
    case 'linear':
      return plain.map((frequency) => frequency / scaling.factor);
    case 'llama3':
      return plain.map((frequency) => llama3(frequency, scaling));
    case 'yarn':
      return yarn(plain, theta, scaling);
  }
}

/** What cosines and sines are multiplied with. */
export function ropeAmplitude(scaling?: RopeScaling): number {
  return scaling?.kind === 'yarn' ? scaling.amplitude : 1;
}

/** The amplitude that YaRN has where a config does not say it. */
export function yarnAmplitude(factor: number): number {
  return factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1;
}

function llama3(frequency: number, {factor, lowTurns, highTurns, firstContext}: Of<'llama3'>): number {
  const turns = (firstContext * frequency) / (2 * Math.PI);
  if (turns > highTurns) return frequency;
  if (turns < lowTurns) return frequency / factor;
  const share = (turns - lowTurns) / (highTurns - lowTurns);
  return ((1 - share) * frequency) / factor + share * frequency;
}

function yarn(plain: Float32Array, theta: number, {factor, ...scaling}: Of<'yarn'>): Float32Array {
  const headDim = 2 * plain.length;
  const pairOf = (turns: number): number =>
    (headDim * Math.log(scaling.firstContext / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [fast, slow] = [pairOf(scaling.fastTurns), pairOf(scaling.slowTurns)];
  const first = Math.max(scaling.truncate ? Math.floor(fast) : fast, 0);
  const last = Math.min(scaling.truncate ? Math.ceil(slow) : slow, headDim - 1);
  const span = first === last ? 1e-3 : last - first;
  const {fround} = Math; // each number is rounded as there
  return plain.map((frequency, j) => {
    const slowed = Math.min(Math.max(fround(fround(j - fround(first)) / fround(span)), 0), 1);
    const kept = fround(1 - slowed);
    return ((1 - kept) * frequency) / factor + kept * frequency;
  });
}

type Of<Kind> = Extract<RopeScaling, {kind: Kind}>;
