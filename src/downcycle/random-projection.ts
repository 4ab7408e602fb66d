// Fewer columns for points that are compared by distance. Shapes: D columns, P columns after projection.
import {createRng} from '../util/rng.js';

/** Columns that points are projected to: distances stay within some percent (Johnson and Lindenstrauss). */
export const MOST_COLUMNS = 128;

/** Random directions, float32 [D, P] with P = {@link MOST_COLUMNS}: always the same for a purpose, whatever the seed. */
export function randomDirections(D: number, purpose: string): Float32Array {
  const rng = createRng(0, purpose);
  const scale = 1 / Math.sqrt(MOST_COLUMNS);
  return Float32Array.from({length: D * MOST_COLUMNS}, () => scale * rng.normal());
}
