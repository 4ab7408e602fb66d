// Layers whose neurons belong to groups that a method should find again.
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng, shuffle} from '../../../src/util/rng.js';

/** Where each neuron goes when a dense model permutes them. */
export function permutation(numNeurons: number): Int32Array {
  return shuffle(
    Int32Array.from({length: numNeurons}, (_, id) => id),
    createRng(2, 'permutation'),
  );
}

/** Gate rows [F, D] that point in one of `numGroups` directions, by id modulo the number; of lengths by lot. */
export function plantedRows(
  to_F: ArrayLike<number>,
  {D, numGroups, lengths}: {D: number; numGroups: number; lengths: [number, number]},
): Float32Array {
  const rng = createRng(4, 'rows');
  const direction_GD = Array.from({length: numGroups}, () => Float32Array.from({length: D}, () => rng.normal()));
  const gate_FD = new Float32Array(to_F.length * D);
  for (let id = 0; id < to_F.length; id++) {
    const length = lengths[0] + (lengths[1] - lengths[0]) * rng.uniform();
    const row_D = direction_GD[id % numGroups]!.map((x) => length * (x + 0.1 * rng.normal()));
    gate_FD.set(row_D, to_F[id]! * D);
  }
  return gate_FD;
}

/** A profile whose tokens mark neurons of one group, by id modulo the number, and now and then any other. */
export function plantedMarks(to_F: ArrayLike<number>, numGroups: number, numMarkers = 5): LayerProfile {
  const F = to_F.length;
  const rng = createRng(6, 'marks');
  const ids = Int32Array.from({length: F}, (_, id) => id);
  const tokens = Array.from({length: 400}, (_, token) => {
    const own = shuffle(
      ids.filter((id) => id % numGroups === token % numGroups),
      rng,
    ).subarray(0, numMarkers - 1);
    const other = ids.filter((id) => !own.includes(id));
    return [...own, other[rng.int(other.length)]!];
  });
  const rise = createRng(8, 'size');
  const hMagnitude_F = new Float32Array(F);
  for (let id = 0; id < F; id++) hMagnitude_F[to_F[id]!] = 1 + rise.uniform() + (id < F / 2 ? 10 : 0);
  const marker_NM = Int32Array.from(tokens.flat(), (id) => to_F[id]!);
  return {...unwatched(F), marker_NM, numMarkers, hMagnitude_F, downNorm_F: new Float32Array(F).fill(2)};
}

/** Experts as sets of ids under their old names, in no order. */
export function oldNames(experts: readonly Int32Array[], to_F: Int32Array): string[] {
  return experts.map((ids) => back(ids, to_F).join()).sort();
}

/** Ids under their old names, ascending. */
export function back(ids: Int32Array, to_F: Int32Array): number[] {
  return Array.from(ids, (id) => to_F.indexOf(id)).sort((a, b) => a - b);
}
