// Structured pruning of an FFN by the text of some tasks (FLAP, arXiv 2312.11983). Shapes: J samples, F neurons, D width.
import {flapScore, worthiest} from '../partition/all-shared.js';
import {columnMeans, type LayerProfile} from '../statistics.js';

/** A dense FFN of which some neurons are left out, each in favour of its mean. */
export interface Pruning {
  /** Neurons that stay, ids ascending. */
  readonly kept: Int32Array;
  /** Mean of h of the neurons that were left out, 0 for those that stay; [F]. */
  readonly mean_F: Float32Array;
}

/**
 * Keeps the `width` neurons of the largest `Var(h_i)·|Wd_i|²` over the tokens of some tasks.
 *
 * Neurons are compared within their layer, so that all layers are equally wide; FLAP ranks them over all layers.
 */
export function prune(profile: LayerProfile, tasks: readonly number[], width: number): Pruning {
  const watched = onTasks(profile, tasks);
  const kept = worthiest(flapScore(watched), width);
  const mean_F = Float32Array.from(columnMeans(watched.hMean_JF, profile.numNeurons));
  for (const id of kept) mean_F[id] = 0;
  return {kept, mean_F};
}

/** What the left out neurons add to the residual stream in the mean, `Σ mean(h_i)·Wd_i`; float32 [D]. */
export function biasOf({mean_F}: Pruning, down_DF: Float32Array): Float32Array {
  const F = mean_F.length;
  return Float32Array.from({length: down_DF.length / F}, (_, d) => {
    let sum = 0;
    for (let i = 0; i < F; i++) sum += (mean_F[i] as number) * (down_DF[d * F + i] as number);
    return sum;
  });
}

/** The moments of h of the samples of some tasks. */
function onTasks(profile: LayerProfile, tasks: readonly number[]): LayerProfile {
  const {taskOfSample_J, hMean_JF, hSquare_JF, numNeurons} = profile;
  const samples = Array.from(taskOfSample_J).flatMap((task, j) => (tasks.includes(task) ? [j] : []));
  const rows = (values_JF: Float32Array): Float32Array => {
    const picked = new Float32Array(samples.length * numNeurons);
    for (const [to, j] of samples.entries()) {
      picked.set(values_JF.subarray(j * numNeurons, (j + 1) * numNeurons), to * numNeurons);
    }
    return picked;
  };
  return {...profile, hMean_JF: rows(hMean_JF), hSquare_JF: rows(hSquare_JF)};
}
