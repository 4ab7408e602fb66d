// What calibration says about the neurons of one FFN. Shapes: J samples, T tasks, R rows of either, N tokens, F neurons.
import {DataError, ModelError} from '../util/errors.js';

/** What one layer's FFN neurons did on the calibration samples; `h = act(x Wg) ⊙ (x Wu)`. */
export interface LayerProfile {
  readonly numNeurons: number;
  /** Task of each sample, ids 0, 1, 2 ... without holes. */
  readonly taskOfSample_J: ArrayLike<number>;
  /** Token mean of act(x Wg), signed, [J, F]. With absolute values allocation collapses: every neuron looks universal. */
  readonly gateMean_JF: Float32Array;
  /** Mean |act(x Wg)| over all tokens, [F]. */
  readonly gateMagnitude_F: Float32Array;
  /** Token means of h and of h², [J, F]. */
  readonly hMean_JF: Float32Array;
  readonly hSquare_JF: Float32Array;
  /** Mean |h| over all tokens, [F]. */
  readonly hMagnitude_F: Float32Array;
  /** Ids of the M neurons with the largest |h| of each token, [N, M] (CMoE's activation markers). */
  readonly marker_NM: Int32Array;
  /** M. */
  readonly numMarkers: number;
  /** Length of each neuron's row of Wd, [F]. */
  readonly downNorm_F: Float32Array;
  /** See {@link PredictedActivity}; null unless it was asked for. */
  readonly predicted: PredictedActivity | null;
  /** What the loss says of each neuron; null unless it was asked for. */
  readonly gradients: NeuronGradients | null;
}

/** The part of a profile that says which tokens mark which neurons. */
export type MarkerProfile = Pick<LayerProfile, 'numNeurons' | 'marker_NM' | 'numMarkers'>;

/** The profile of a layer that nobody watched: its width is all there is. */
export function unwatched(numNeurons: number): LayerProfile {
  const none = new Float32Array(0);
  return {
    numNeurons,
    taskOfSample_J: [],
    gateMean_JF: none,
    gateMagnitude_F: none,
    hMean_JF: none,
    hSquare_JF: none,
    hMagnitude_F: none,
    marker_NM: new Int32Array(0),
    numMarkers: 1,
    downNorm_F: none,
    predicted: null,
    gradients: null,
  };
}

/** How much of each neuron's activity a linear router could foresee. */
export interface PredictedActivity {
  /** P. */
  readonly numColumns: number;
  /**
   * The ridge regression of |h_i|·|Wd_i| on the FFN's input, in the metric of the input's covariance, so that the
   * distance of two neurons is that of their predictions; projected to P columns at random, [F, P].
   *
   * It is read where it is kept: those of all layers would take more memory than the rest of a profile.
   */
  readonly read: () => Promise<Float32Array>;
}

/** First-order importance of neurons: g is the gradient of the summed language-model loss for h. */
export interface NeuronGradients {
  /** Mean |h · g| over all tokens, [F] (LLaMA-MoE, arXiv 2406.16554). */
  readonly importance_F: Float32Array;
  /** Mean ((h - mean h) · g)² over all tokens, [F]: the loss that a neuron's variation carries. */
  readonly sensitivity_F: Float32Array;
}

/** What the spread of a neuron is taken over: the means of each task's samples, or the samples themselves. */
export type CvOver = 'tasks' | 'samples';

/** Keeps the quotient finite for a neuron whose mean is zero (ExpertWeaver, eq. 3). */
const EPSILON = 1e-8;

/**
 * Refuses a profile that arithmetic cannot be done on.
 *
 * @throws ModelError naming the first activation that is not finite; DataError if sizes do not fit or a task has no sample.
 */
export function checkProfile(profile: LayerProfile, layer: number): void {
  const {gateMean_JF, taskOfSample_J, numNeurons} = profile;
  if (gateMean_JF.length === 0 || gateMean_JF.length !== taskOfSample_J.length * numNeurons) {
    throw new DataError(
      `Profile of layer ${layer}: ${gateMean_JF.length} activations do not make ${taskOfSample_J.length} samples of ${numNeurons} neurons.`,
      {hint: 'Profile the model again.'},
    );
  }
  const bad = gateMean_JF.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new ModelError(
      `Profile of layer ${layer}: neuron ${bad % numNeurons} is ${gateMean_JF[bad]} on sample ${Math.floor(bad / numNeurons)}.`,
      {hint: 'The model overflows on this text; check its weights and its dtype.'},
    );
  }
  samplesPerTask(taskOfSample_J);
}

/** Adds numbers to sums, in place. */
export function addTo(sum: Float64Array, part: ArrayLike<number>): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (part[i] as number);
}

/** Mean of each column of float [R, F], in float64. */
export function columnMeans(rows_RF: Float32Array | Float64Array, numNeurons: number): Float64Array {
  const mean_F = new Float64Array(numNeurons);
  const numRows = rows_RF.length / numNeurons;
  for (let r = 0, at = 0; r < numRows; r++) {
    for (let i = 0; i < numNeurons; i++, at++) mean_F[i] = (mean_F[i] as number) + (rows_RF[at] as number);
  }
  return mean_F.map((sum) => sum / numRows);
}

/**
 * Mean activation of each task's samples, [T, F].
 *
 * @throws DataError if a task id between 0 and the largest has no sample.
 */
export function taskMeans({gateMean_JF, taskOfSample_J, numNeurons}: LayerProfile): Float64Array {
  const numSamples_T = samplesPerTask(taskOfSample_J);
  const mean_TF = new Float64Array(numSamples_T.length * numNeurons);
  for (let j = 0, at = 0; j < taskOfSample_J.length; j++) {
    const task = taskOfSample_J[j] as number;
    const share = 1 / (numSamples_T[task] as number);
    for (let i = task * numNeurons; i < (task + 1) * numNeurons; i++, at++) {
      mean_TF[i] = (mean_TF[i] as number) + share * (gateMean_JF[at] as number);
    }
  }
  return mean_TF;
}

/**
 * CV of each column of [R, F]: `std / (|mean| + 1e-8)` (ExpertWeaver, eq. 3), in float64.
 *
 * @param ddof 0 divides the variance by R (the paper's population std), 1 by R - 1.
 */
export function coefficientOfVariation(
  rows_RF: Float32Array | Float64Array,
  numNeurons: number,
  ddof: 0 | 1 = 0,
): Float64Array {
  const mean_F = columnMeans(rows_RF, numNeurons);
  const squares_F = new Float64Array(numNeurons);
  const numRows = rows_RF.length / numNeurons;
  for (let r = 0, at = 0; r < numRows; r++) {
    for (let i = 0; i < numNeurons; i++, at++) {
      const off = (rows_RF[at] as number) - (mean_F[i] as number);
      squares_F[i] = (squares_F[i] as number) + off * off;
    }
  }
  return squares_F.map(
    (sum, i) => Math.sqrt(sum / Math.max(numRows - ddof, 1)) / (Math.abs(mean_F[i] as number) + EPSILON),
  );
}

/**
 * How task-dependent each neuron is: its CV over task means or over samples, [F]. Low is universal; a dead neuron, whose
 * activation is always zero, is universal to nothing and has an infinite one.
 */
export function neuronCv(profile: LayerProfile, over: CvOver): Float64Array {
  const {numNeurons, gateMean_JF} = profile;
  const rows_RF = over === 'tasks' ? taskMeans(profile) : gateMean_JF;
  const cv_F = coefficientOfVariation(rows_RF, numNeurons);
  const isAlive_F = new Uint8Array(numNeurons);
  for (const [at, value] of gateMean_JF.entries()) if (value !== 0) isAlive_F[at % numNeurons] = 1;
  return cv_F.map((cv, i) => (isAlive_F[i] ? cv : Number.POSITIVE_INFINITY));
}

/** How many task means or samples the spread of a neuron is taken over; of one alone there is none. */
export function cvRows({taskOfSample_J}: LayerProfile, over: CvOver): number {
  return over === 'tasks' ? new Set(Array.from(taskOfSample_J)).size : taskOfSample_J.length;
}

/** How often each neuron is among a token's markers, [F]. */
export function markerCounts({marker_NM, numNeurons}: MarkerProfile): Int32Array {
  const count_F = new Int32Array(numNeurons);
  for (const id of marker_NM) count_F[id] = (count_F[id] as number) + 1;
  return count_F;
}

/** |mean activation| of each neuron over all samples, [F]. */
export function meanMagnitude({gateMean_JF, numNeurons}: LayerProfile): Float64Array {
  return columnMeans(gateMean_JF, numNeurons).map(Math.abs);
}

/** Ids 0..F-1 by rising value, the lower id first among equals. */
export function rankAscending(value_F: Float64Array): Int32Array {
  const ids = Int32Array.from(value_F.keys());
  return ids.sort((a, b) => (value_F[a] as number) - (value_F[b] as number) || a - b);
}

function samplesPerTask(taskOfSample_J: ArrayLike<number>): Int32Array {
  const tasks = Array.from(taskOfSample_J);
  const numSamples_T = new Int32Array(tasks.reduce((most, task) => Math.max(most, task + 1), 0));
  for (const task of tasks) numSamples_T[task] = (numSamples_T[task] as number) + 1;
  const empty = numSamples_T.indexOf(0);
  if (empty < 0) return numSamples_T;
  throw new DataError(`Calibration task ${empty} of ${numSamples_T.length} has no sample.`, {
    hint: 'Give every task at least one sample or leave the task out.',
  });
}
