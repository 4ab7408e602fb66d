// Hierarchical CMoE (arXiv 2502.04416): every routed expert of a mixture becomes a shared part and experts inside it.
import {type Architecture, countParameters, type FfnLayout} from '../model/architecture.js';
import {refuseExisting} from '../util/atomic.js';
import {ConfigError} from '../util/errors.js';
import type {Calibration} from './calibration.js';
import type {Conversion} from './convert.js';
import {bytesOf, type OnProgress, tensorsAround, writeTensors} from './convert-source.js';
import {requireFiniteWeights} from './finite-weights.js';
import {expertsApart} from './inner/apart.js';
import {innerMap, planExperts, requireCuttable, unreached} from './inner/plan.js';
import {cutExperts} from './inner/tensors.js';
import {watchExperts} from './inner/watch.js';
import {type ModelSource, openSource, sourceRecord} from './model-source.js';
import {renderNeuronMaps} from './neuron-maps.js';
import type {CmoeOptions} from './options.js';
import {mapHash} from './plan.js';
import type {ProfileOptions} from './profile-options.js';
import {currentVersions, type InnerLayerRecord, type Provenance} from './provenance.js';
import type {MarkerProfile} from './statistics.js';

/** How the experts of a mixture are cut once more. */
export interface SplitExpertsOptions {
  /** Folder of the mixture. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  /** Counts are in parts of one expert. */
  readonly method: CmoeOptions;
  /** For the record: nothing is drawn. */
  readonly seed: number;
  /** Text that the mixture's experts are watched on. */
  readonly calibration: Calibration;
  /** How it was read, and which neurons are marked. */
  readonly profile: ProfileOptions;
  /** Watches and plans, and writes nothing. */
  readonly dryRun?: boolean;
  /** Config path or `file:line:column` of the method, for messages. */
  readonly where?: string;
  /** Commit of the source, if it came from a hub. */
  readonly revision?: string;
}

/** What the conversion did, or would do; `dense` counts the mixture that it began with. */
export interface ExpertsConversion extends Omit<Conversion, 'provenance'> {
  readonly provenance: Extract<Provenance, {kind: 'inner-split'}>;
}

/** What is told on the way: layers that were watched, then tensors written. */
export interface SplitExpertsProgress {
  readonly onLayer?: OnProgress;
  readonly onTensor?: OnProgress;
}

/**
 * Cuts every routed expert of a mixture into a part that all its tokens use and experts inside it, chosen by an activation
 * of one neuron of each; which neurons go where is told by the tokens that the mixture's own routers send to the expert.
 *
 * Routers, shared experts and all else of the mixture keep their bits, and so do the neurons, which only move. An expert
 * that no token reaches is cut in the order of its neurons, and named in the record. The engine must have been started.
 * @throws ConfigError if the counts do not cut the experts, or an option is not to be had inside experts.
 * @throws ModelError if the model is damaged, dense or has experts inside its experts already.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function splitExperts(
  options: SplitExpertsOptions,
  {onLayer, onTensor}: SplitExpertsProgress = {},
): Promise<ExpertsConversion> {
  if (!options.dryRun) await refuseExisting(options.out);
  const opened = await openSource(options.model);
  const source = expertsApart(opened);
  try {
    const {method, calibration, profile, model, where = 'convert'} = options;
    requireCuttable(source.architecture, method, model, where);
    requireMarkable(source.architecture, profile, where);
    await requireFiniteWeights(opened.folder.tensors, opened.architecture);
    const watched = await watchExperts(source, calibration, profile.markers, onLayer);
    const plans = planExperts(watched, method);
    const maps = source.architecture.ffn.map((layout, l) => innerMap(plans[l] ?? [], widthOf(layout), l));
    const architecture = cutArchitecture(source.architecture, method);
    const provenance = describe(source, options, watched, mapHash(maps));
    const tensors = tensorsAround(source, architecture, (layer, specs) =>
      cutExperts(source, layer, specs, plans[layer] ?? []),
    );
    const head = {architecture, provenance, neurons: renderNeuronMaps({maps, padding: 0})};
    if (!options.dryRun) await writeTensors(source, options.out, head, tensors, onTensor);
    return {
      architecture,
      parent: opened.architecture,
      provenance,
      dense: countParameters(opened.architecture),
      moe: countParameters(architecture),
      bytes: bytesOf(tensors),
      warnings: source.warnings,
      out: options.dryRun ? null : options.out,
    };
  } finally {
    await source.folder.close();
  }
}

/** Neurons of each routed expert. */
function widthOf(layout: FfnLayout): number {
  return layout.kind === 'moe' ? layout.expertWidth : 0;
}

function requireMarkable({ffn}: Architecture, {markers}: ProfileOptions, where: string): void {
  const narrow = ffn.findIndex((layout) => layout.kind === 'moe' && layout.expertWidth < markers.count);
  const layout = ffn[narrow];
  if (!layout) return;
  throw new ConfigError(
    `${where}: profile.markers.count (${markers.count}) is more than the ${widthOf(layout)} neurons of an expert of layer ${narrow}.`,
    {hint: 'Lower profile.markers.count.'},
  );
}

/** The mixture with experts inside its experts, which {@link requireCuttable} let pass; those inside weigh one or their score, as the method says. */
function cutArchitecture(mixture: Architecture, {experts, shared, topK, weights}: CmoeOptions): Architecture {
  const weight = weights === 'score' ? weights : 'one';
  const ffn = mixture.ffn.map((layout): FfnLayout => {
    if (layout.kind === 'dense') return layout;
    const expertWidth = layout.expertWidth / (experts + shared);
    return {...layout, expertWidth: shared * expertWidth, inner: {experts, topK, expertWidth, weight}};
  });
  return {...mixture, ffn};
}

function describe(
  source: ModelSource,
  {revision, method, seed, calibration, profile}: SplitExpertsOptions,
  watched: readonly (readonly MarkerProfile[])[],
  neuronMapHash: string,
): ExpertsConversion['provenance'] {
  return {
    kind: 'inner-split',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: sourceRecord(source, revision),
    method,
    calibration: {tasks: [...calibration.tasks], tokenHash: calibration.hash, options: profile},
    neuronMapHash,
    layers: source.architecture.ffn.map((layout, l) => layerRecord(layout, method, unreached(watched[l] ?? []))),
  };
}

function layerRecord(
  layout: FfnLayout,
  {experts, shared, topK}: CmoeOptions,
  missed: readonly number[],
): InnerLayerRecord | null {
  if (layout.kind === 'dense') return null;
  const expertWidth = layout.expertWidth / (experts + shared);
  return {
    experts: layout.experts,
    topK: layout.topK,
    numNeurons: layout.expertWidth,
    sharedWidth: shared * expertWidth,
    inner: {experts, topK, expertWidth},
    unreached: [...missed],
  };
}
