// How positions are turned: keys `rope.scaling.*` of a GGUF file, and the factors that it has in place of Llama 3's.
import {ModelError} from '../../util/errors.js';

/** `rope_scaling` of a config. */
export type RopeScalingKeys = Readonly<Record<string, string | number>>;

/** How fast a head turns, and how many numbers it has. */
export interface Rotation {
  readonly theta: number;
  readonly headDim: number;
  /** Context before it was lengthened, if the file says so. */
  readonly firstContext: number | null;
}

/** Of Llama 3.1, 3.2 and 3.3: files keep what comes of these, and not they. */
const LLAMA3 = {low_freq_factor: 1, high_freq_factor: 4} as const;
const LLAMA3_CONTEXT = 8192;
/** Factors are float32, of powers and quotients that others round otherwise. */
const TOLERANCE = 1e-4;

/**
 * The `rope_scaling` whose factors a file has: as many as a head has pairs, between 1 and the factor itself.
 *
 * @throws ModelError if they are none of Llama 3's.
 */
export function llama3Scaling(factors: Float32Array, rotation: Rotation, path: string): RopeScalingKeys {
  const factor = Math.max(...factors);
  for (const context of [rotation.firstContext ?? LLAMA3_CONTEXT, LLAMA3_CONTEXT]) {
    const keys = {rope_type: 'llama3', factor, ...LLAMA3, original_max_position_embeddings: context};
    const expected = llama3Factors(factor, context, rotation);
    const isSame = (value: number, i: number): boolean => Math.abs(value - (expected[i] ?? 0)) <= TOLERANCE * value;
    if (factors.length === expected.length && factors.every(isSame)) return keys;
  }
  throw new ModelError(`${path}: tensor "rope_freqs.weight" turns positions otherwise than Llama 3 does.`, {
    hint: 'Give the model as a Hugging Face folder.',
  });
}

/** What the wavelength of each pair is multiplied by. */
function llama3Factors(factor: number, context: number, {theta, headDim}: Rotation): number[] {
  const {low_freq_factor: low, high_freq_factor: high} = LLAMA3;
  return Array.from({length: headDim / 2}, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headDim);
    if (wavelength < context / high) return 1;
    if (wavelength > context / low) return factor;
    const smooth = (context / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
