// DIVE (arXiv 2506.09351): a mixture of pruned copies of a dense FFN, each pruned on the text of tasks that go together.
import {type Architecture, countParameters, type FfnLayout, SOFTMAX_ROUTING} from '../model/architecture.js';
import {refuseExisting} from '../util/atomic.js';
import {ConfigError, DataError} from '../util/errors.js';
import {roundHalfEven} from './allocation.js';
import type {Calibration} from './calibration.js';
import type {Conversion} from './convert.js';
import {gatherNeurons} from './convert-gather.js';
import {
  expertBiasTensors,
  type FfnSite,
  gluTensors,
  type MadeTensor,
  mixtureSpecs,
  moeBytes,
  type OnProgress,
  routerTensor,
  valuesOf,
  writeMoe,
} from './convert-source.js';
import {type Affinity, affinityOf} from './dive/affinity.js';
import {crossPerplexity, type OnLayer} from './dive/cross-perplexity.js';
import {countKept, keptHash, renderKeptNeurons} from './dive/kept-neurons.js';
import {biasOf, type Pruning, prune} from './dive/prune.js';
import type {DiveOptions} from './dive-options.js';
import {freshRouter} from './fresh-router.js';
import {type DenseSource, modelRecord, openDense, sourceRecord} from './model-source.js';
import {type Profile, requireProfileOf} from './profile-file.js';
import {currentVersions, type Provenance} from './provenance.js';
import {checkProfile} from './statistics.js';

/** How a dense model becomes a mixture of its pruned copies. */
export interface DiveConvertOptions {
  /** Folder of the dense model. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  readonly method: DiveOptions;
  readonly seed: number;
  /** What calibration said. */
  readonly profile: Profile;
  /** The text that the profile was made on; pruned models are measured on it. */
  readonly calibration: Calibration;
  /** Measures and plans, and writes nothing. */
  readonly dryRun?: boolean;
  /** Config path or `file:line:column` of the method, for messages. */
  readonly where?: string;
  /** Commit of the source, if it came from a hub. */
  readonly revision?: string;
}

/** What the conversion did, or would do. */
export interface DiveConversion extends Omit<Conversion, 'provenance'> {
  readonly provenance: Extract<Provenance, {kind: 'prune'}>;
  /** Of each layer, how many neurons of the dense FFN 0, 1, ... E experts keep. */
  readonly kept: readonly (readonly number[])[];
}

/** What is told on the way: layers that pruned models went through, then tensors written. */
export interface DiveProgress {
  readonly onLayer?: OnLayer;
  readonly onTensor?: OnProgress;
}

/**
 * Prunes the dense model on each task, measures every pruned model on the text of every task, clusters tasks by that, and
 * writes a mixture whose experts are the dense FFN pruned on each cluster, under routers drawn at random.
 *
 * What a neuron of the dense model weighed keeps its bits; biases are rounded once to the dtype of the down projections,
 * routers are stored in float32. The engine must have been started.
 * @throws ConfigError if there are fewer tasks than experts, samples of one token, or experts without a neuron.
 * @throws ModelError if the model is damaged or a mixture already, or a pruned one has a loss that is not finite.
 * @throws DataError if the profile is of another model or text.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function dive(
  options: DiveConvertOptions,
  {onLayer, onTensor}: DiveProgress = {},
): Promise<DiveConversion> {
  if (!options.dryRun) await refuseExisting(options.out);
  const source = await openDense(options.model);
  try {
    checkInputs(source, options);
    const plan = await planDive(source, options, onLayer);
    const neurons = plan.layers.map((experts) => experts.map(({kept}) => kept));
    const architecture = divedArchitecture(source.architecture, options.method, plan.width);
    const provenance = describe(source, options, plan, keptHash(neurons));
    const ffn = (site: FfnSite): MadeTensor[] =>
      prunedFfn(site, architecture, plan.layers[site.layer] ?? [], options.seed);
    const content = {architecture, provenance, neurons: renderKeptNeurons(neurons), ffn};
    if (!options.dryRun) await writeMoe(source, options.out, content, onTensor);
    return {
      architecture,
      parent: source.architecture,
      provenance,
      kept: neurons.map((experts) => countKept(experts, source.numNeurons)),
      dense: countParameters(source.architecture),
      moe: countParameters(architecture),
      bytes: moeBytes(source, content),
      warnings: source.warnings,
      out: options.dryRun ? null : options.out,
    };
  } finally {
    await source.folder.close();
  }
}

/**
 * Refuses counts that cannot be had, whatever calibration says.
 *
 * @throws ConfigError if there are fewer tasks than experts, samples of one token, or experts without a neuron.
 */
export function requireDivable(
  {experts, keep}: DiveOptions,
  {tasks, sampleTokens, numNeurons}: {tasks: number; sampleTokens: number; numNeurons: number},
  where: string,
): void {
  if (tasks < experts) {
    throw new ConfigError(
      `${where}: method dive makes each expert of a cluster of tasks; ${tasks} ${tasks === 1 ? 'task' : 'tasks'} cannot be put into ${experts} clusters.`,
      {hint: `Each data source is a task: lower experts to ${tasks}, or give more sources.`},
    );
  }
  if (sampleTokens < 2) {
    throw new ConfigError(`${where}: method dive measures how well a sample is foretold; one of 1 token is not.`, {
      hint: 'Raise profile.tokensPerSample.',
    });
  }
  if (roundHalfEven(keep * numNeurons) > 0) return;
  throw new ConfigError(`${where}: keep ${keep} of ${numNeurons} neurons leaves an expert none. Raise keep.`);
}

/** Who keeps what. */
interface DivePlan {
  /** Neurons of each expert. */
  readonly width: number;
  readonly affinity: Affinity;
  /** The experts of each layer, [layers][E]. */
  readonly layers: readonly (readonly Pruning[])[];
}

async function planDive(
  source: DenseSource,
  {method, profile, calibration}: DiveConvertOptions,
  onLayer?: OnLayer,
): Promise<DivePlan> {
  const width = roundHalfEven(method.keep * source.numNeurons);
  const pruned = (tasks: readonly number[]): Pruning[] => profile.layers.map((layer) => prune(layer, tasks, width));
  const models = calibration.tasks.map((_, task) => pruned([task]));
  const affinity = affinityOf(await crossPerplexity(source, calibration, models, {onLayer}), method.experts);
  const layers = profile.layers.map((layer) => affinity.clusters.map((tasks) => prune(layer, tasks, width)));
  return {width, affinity, layers};
}

function checkInputs(
  source: DenseSource,
  {model, method, profile, calibration, where = 'convert'}: DiveConvertOptions,
): void {
  requireProfileOf(profile, modelRecord(source), model);
  profile.layers.forEach(checkProfile);
  if (profile.metadata.tokenHash !== calibration.hash) {
    throw new DataError(
      `${where}: the profile was made on other text than the one that pruned models are measured on.`,
      {
        hint: 'Profile the model again.',
      },
    );
  }
  const {tasks, sequenceLength} = calibration;
  requireDivable(method, {tasks: tasks.length, sampleTokens: sequenceLength, numNeurons: source.numNeurons}, where);
}

function divedArchitecture(
  dense: Architecture,
  {experts, topK, renormalise}: DiveOptions,
  expertWidth: number,
): Architecture {
  const layout: FfnLayout = {
    kind: 'moe',
    experts,
    topK,
    expertWidth,
    sharedWidth: 0,
    selectionBias: false,
    router: 'linear',
    expertBias: true,
  };
  return {...dense, ffn: dense.ffn.map(() => layout), routing: {...SOFTMAX_ROUTING, renormalise}};
}

/** The tensors of one layer: of each expert the rows of gate and up and columns of down that it keeps, and its bias. */
function prunedFfn(site: FfnSite, architecture: Architecture, experts: readonly Pruning[], seed: number): MadeTensor[] {
  const specs = mixtureSpecs(site);
  const of = (expert: number): Pruning => {
    const pruning = experts[expert];
    if (!pruning) throw new Error(`layer ${site.layer} has no expert ${expert}`);
    return pruning;
  };
  return [
    ...routerTensor(site, () => freshRouter(specs.router, architecture, seed)),
    ...gluTensors(site, specs.experts, (matrix, which, expert) => gatherNeurons(matrix, which, of(expert).kept)),
    ...expertBiasTensors(site, async (expert) => biasOf(of(expert), valuesOf((await site.read()).down))),
  ];
}

function describe(
  dense: DenseSource,
  {revision, method, seed, profile: {metadata}}: DiveConvertOptions,
  {affinity, width}: DivePlan,
  neuronMapHash: string,
): DiveConversion['provenance'] {
  const {tasks, tokenHash, options} = metadata;
  return {
    kind: 'prune',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: sourceRecord(dense, revision),
    method,
    calibration: {tasks, tokenHash, options},
    affinity,
    numNeurons: dense.numNeurons,
    expertWidth: width,
    neuronMapHash,
  };
}
