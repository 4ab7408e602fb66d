import {
  type Architecture,
  countParameters,
  type ParameterCount,
  type Routing,
  SOFTMAX_ROUTING,
} from '../model/architecture.js';
import {refuseExisting} from '../util/atomic.js';
import {ConfigError} from '../util/errors.js';
import {type GluMatrix, gatherNeurons} from './convert-gather.js';
import {
  type DenseMatrix,
  type DenseSource,
  type FfnSite,
  gluTensors,
  type MadeTensor,
  type OnProgress,
  openDense,
  routerTensor,
  valuesOf,
  writeMoe,
} from './convert-source.js';
import type {SplitOptions} from './options.js';
import {planConversion} from './partition/plan-conversion.js';
import {type ConversionPlan, type LayerPlan, planHash} from './plan.js';
import {type Profile, requireProfileOf} from './profile-file.js';
import {currentVersions, type LayerRecord, type Provenance} from './provenance.js';
import {routerRows} from './router-rows.js';
import type {LayerProfile} from './statistics.js';

/** How a dense model becomes a mixture of experts. */
export interface ConvertOptions {
  /** Folder of the dense model. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  readonly method: SplitOptions;
  readonly seed: number;
  /** What calibration said; methods that look at activations need it. */
  readonly profile?: Profile;
  /**
   * For `outputScale: match`, one factor a layer, as `measureRoutedScale` gives it. It is folded into the experts' down
   * projections.
   */
  readonly routedScale?: readonly number[];
  /** What {@link planOf} gave for the same options; made if absent. */
  readonly plan?: ConversionPlan;
  /** Plans and writes nothing. */
  readonly dryRun?: boolean;
  /** Config path or `file:line:column` of the method, for messages. */
  readonly where?: string;
  /** Commit of the source, if it came from a hub. */
  readonly revision?: string;
}

/** What a conversion did, or would do: the rows of its plan table. */
export interface Conversion {
  readonly architecture: Architecture;
  readonly provenance: Extract<Provenance, {kind: 'split'}>;
  readonly dense: ParameterCount;
  readonly moe: ParameterCount;
  /** What the files of the model hold beyond its config, in words. */
  readonly warnings: readonly string[];
  /** The folder written, or null after a dry run. */
  readonly out: string | null;
}

/**
 * Cuts every FFN of a dense model into a shared expert and routed ones, and writes the result as an MoE folder.
 *
 * Goes layer by layer, in the dtypes of the source: every weight that moves is the same bits as before. Router rows,
 * the means of gate rows, are new numbers and stored in float32.
 * @throws ConfigError if the counts do not cut the FFN, or the method needs a profile or factors that are not given.
 * @throws ModelError if the model is damaged or a mixture already; DataError if the profile is of another model.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function convert(options: ConvertOptions, onProgress?: OnProgress): Promise<Conversion> {
  if (!options.dryRun) await refuseExisting(options.out);
  const source = await openDense(options.model);
  try {
    const plan = options.plan ?? makePlan(source, options);
    const scales = routedScales(source, options);
    const architecture = splitArchitecture(source.architecture, plan);
    const provenance = describeSplit(source, options, plan, scales);
    const ffn = (site: FfnSite): MadeTensor[] => splitFfn(site, plan, scales[site.layer]);
    if (!options.dryRun) await writeMoe(source, options.out, {architecture, provenance, ffn}, onProgress);
    return {
      architecture,
      provenance,
      dense: countParameters(source.architecture),
      moe: countParameters(architecture),
      warnings: source.warnings,
      out: options.dryRun ? null : options.out,
    };
  } finally {
    await source.folder.close();
  }
}

/** The plan that {@link convert} would follow. @throws as it does. */
export async function planOf(options: Omit<ConvertOptions, 'out'>): Promise<ConversionPlan> {
  const source = await openDense(options.model);
  try {
    return makePlan(source, options);
  } finally {
    await source.folder.close();
  }
}

/** The architecture that a plan makes of a dense one: softmax over all routed experts, weights as they are. */
export function splitArchitecture(
  dense: Architecture,
  plan: ConversionPlan,
  routing: Routing = SOFTMAX_ROUTING,
): Architecture {
  const ffn = plan.layers.map(({shared, experts, topK}) => ({
    kind: 'moe' as const,
    experts: experts.length,
    topK,
    expertWidth: experts[0]?.length ?? 0,
    sharedWidth: shared.length,
    selectionBias: false,
  }));
  return {...dense, ffn, routing};
}

function makePlan(
  source: DenseSource,
  {method, profile, seed, model, where = 'convert'}: Omit<ConvertOptions, 'out'>,
): ConversionPlan {
  const {architecture, numNeurons, fingerprint} = source;
  const numLayers = architecture.ffn.length;
  if (profile) requireProfileOf(profile, {fingerprint, layers: numLayers, ffnWidth: numNeurons}, model);
  if (!profile && method.method === 'expertweaver') {
    throw new ConfigError(`${where}: method ${method.method} needs a profile of ${model}, none was given.`, {
      hint: 'Make one with `downcycle profile`.',
    });
  }
  const profiles = profile?.layers ?? Array.from({length: numLayers}, () => unprofiled(numNeurons));
  return planConversion({method, profiles, cv: profile?.metadata.options.cv ?? 'tasks', seed, where});
}

/** A layer that nobody watched: all that methods without activations read is its width. */
function unprofiled(numNeurons: number): LayerProfile {
  return {gateMean_JF: new Float32Array(0), taskOfSample_J: [], numNeurons};
}

function routedScales(
  source: DenseSource,
  {method, routedScale, where = 'convert'}: ConvertOptions,
): readonly number[] {
  const numLayers = source.architecture.ffn.length;
  const isMatched = method.outputScale === 'match';
  if (!isMatched && !routedScale) return Array.from({length: numLayers}, () => 1);
  if (!isMatched)
    throw new ConfigError(`${where}: factors of the routed part were given, but outputScale is not match.`);
  if (routedScale?.length === numLayers && routedScale.every((scale) => Number.isFinite(scale) && scale > 0)) {
    return routedScale;
  }
  const found = routedScale ? `found [${routedScale.join(', ')}]` : 'none were measured';
  throw new ConfigError(`${where}: outputScale match needs ${numLayers} factors above 0, one a layer; ${found}.`, {
    hint: 'Set outputScale to none, or measure them on calibration text.',
  });
}

/** The tensors of one layer's mixture: each expert is its neurons' rows of gate and up and columns of down, times `scale`. */
export function splitFfn(site: FfnSite, {layers}: ConversionPlan, scale = 1): MadeTensor[] {
  const plan = layers[site.layer];
  if (!plan) throw new Error(`the plan has no layer ${site.layer}`);
  const {shared, experts} = site.specs;
  const expertCut = (matrix: DenseMatrix, which: GluMatrix, e: number): Float32Array | Uint8Array => {
    const bytes = cut(matrix, which, plan.experts[e]);
    return which === 'down' && scale !== 1 ? scaled(valuesOf({...matrix, bytes}), scale) : bytes;
  };
  return [
    ...routerTensor(site, async () => gateMeans((await site.read()).gate, plan)),
    ...(shared ? gluTensors(site, shared, (matrix, which) => cut(matrix, which, plan.shared)) : []),
    ...gluTensors(site, experts, expertCut),
  ];
}

function gateMeans(gate: DenseMatrix, {experts}: LayerPlan): Float32Array {
  return routerRows(valuesOf(gate), gate.columns, experts);
}

function cut(matrix: DenseMatrix, which: GluMatrix, neurons: Int32Array = new Int32Array(0)): Uint8Array {
  return gatherNeurons(matrix, which, neurons);
}

function scaled(values: Float32Array, scale: number): Float32Array {
  return values.map((value) => value * scale);
}

function describeSplit(
  {fingerprint}: DenseSource,
  {model, revision, method, seed, profile}: ConvertOptions,
  plan: ConversionPlan,
  scales: readonly number[],
): Extract<Provenance, {kind: 'split'}> {
  return {
    kind: 'split',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: {path: model, revision: revision ?? null, fingerprint},
    method,
    calibration: profile ? calibrationOf(profile) : null,
    neuronMapHash: planHash(plan),
    layers: plan.layers.map((_, layer) => layerRecord(plan, layer, scales[layer] ?? 1)),
  };
}

function calibrationOf({metadata: {tasks, tokenHash, options}}: Profile) {
  return {tasks, tokenHash, options};
}

function layerRecord({layers, allocation}: ConversionPlan, layer: number, routedScale: number): LayerRecord {
  const plan = layers[layer];
  const {specialisedShare, sharedRatio} = allocation[layer] ?? {specialisedShare: null, sharedRatio: 0};
  return {
    experts: plan?.experts.length ?? 0,
    topK: plan?.topK ?? 0,
    expertWidth: plan?.experts[0]?.length ?? 0,
    sharedWidth: plan?.shared.length ?? 0,
    specialisedShare,
    sharedRatio,
    routedScale,
  };
}
