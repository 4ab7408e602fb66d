import {
  type Architecture,
  countParameters,
  type FfnLayout,
  type ParameterCount,
  type RouterKind,
  type Routing,
  SOFTMAX_ROUTING,
} from '../model/architecture.js';
import {refuseExisting} from '../util/atomic.js';
import {ConfigError} from '../util/errors.js';
import type {Calibration} from './calibration.js';
import {type FfnSite, type MadeTensor, moeBytes, type OnProgress, readGateRows, writeMoe} from './convert-source.js';
import {drawRouter, routerDraw} from './drawn-router.js';
import {type FitOptions, type FittedLayer, startFit} from './fit.js';
import {type DenseSource, modelRecord, openDense, sourceRecord} from './model-source.js';
import {renderNeuronMaps} from './neuron-maps.js';
import {isScaled, type SplitOptions} from './options.js';
import {padDense} from './padding.js';
import {planConversion, profileNeeds} from './partition/plan-conversion.js';
import {type ConversionPlan, neuronMaps, planHash} from './plan.js';
import {type Profile, requireProfileOf} from './profile-file.js';
import {currentVersions, type LayerRecord, type Provenance} from './provenance.js';
import {regroup} from './regroup.js';
import {splitFfn} from './split-ffn.js';
import {unwatched} from './statistics.js';

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
  /** Text that neurons are regrouped on, and a router or a repair is fitted on; see {@link needsCalibration}. */
  readonly calibration?: Calibration;
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
  /** Architecture of the model it was cut out of. */
  readonly parent: Architecture;
  readonly provenance: Extract<Provenance, {kind: 'split'}>;
  readonly dense: ParameterCount;
  readonly moe: ParameterCount;
  /** Bytes of its tensors. */
  readonly bytes: number;
  /** What the files of the model hold beyond its config, in words. */
  readonly warnings: readonly string[];
  /** The folder written, or null after a dry run. */
  readonly out: string | null;
}

/**
 * Cuts every FFN of a dense model into a shared expert and routed ones, and writes the result as an MoE folder.
 *
 * Goes layer by layer, in the dtypes of the source: weights that only move keep their bits, what is scaled or fitted is
 * rounded once. Routers are new numbers and stored in float32.
 * @throws ConfigError if the counts do not cut the FFN, or the method needs a profile or factors that are not given.
 * @throws ModelError if the model is damaged or a mixture already; DataError if the profile is of another model.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function convert(options: ConvertOptions, onProgress?: OnProgress): Promise<Conversion> {
  if (!options.dryRun) await refuseExisting(options.out);
  const dense = await openDense(options.model);
  try {
    if (options.plan) requirePlanOf(options.plan, dense, options);
    const plan = options.plan ?? (await makePlan(dense, options));
    const source = padDense(dense, plan.padding);
    const scales = routedScales(source, options);
    const {method} = options;
    const architecture = splitArchitecture(source.architecture, plan, routingOf(method), routerOf(method));
    const described = describeSplit(dense, options, plan, scales);
    const planned = {architecture, provenance: described, plan, scales};
    const provenance = options.dryRun ? described : await write(source, options, planned, onProgress);
    return {
      architecture,
      parent: dense.architecture,
      provenance,
      dense: countParameters(dense.architecture),
      moe: countParameters(architecture),
      bytes: moeBytes(source, {architecture, provenance, ffn: (site) => splitFfn(site, plan)}),
      warnings: dense.warnings,
      out: options.dryRun ? null : options.out,
    };
  } finally {
    await dense.folder.close();
  }
}

interface Planned {
  readonly architecture: Architecture;
  readonly provenance: Extract<Provenance, {kind: 'split'}>;
  readonly plan: ConversionPlan;
  readonly scales: readonly number[];
}

/** Returns the record that was written: with how well each layer was repaired. */
async function write(
  source: DenseSource,
  {method, calibration, out, seed, where = 'convert'}: ConvertOptions,
  {architecture, provenance, plan, scales}: Planned,
  onProgress?: OnProgress,
): Promise<Planned['provenance']> {
  const fitOptions = fitOptionsOf(method, seed);
  if (needsCalibration(method) && !calibration) {
    throw new ConfigError(
      `${where}: regroup, router ridge, router centroid and repair refit need calibration text, none was given.`,
    );
  }
  const fit = fitOptions && calibration ? await startFit(source, calibration, plan, fitOptions) : null;
  const errors: LayerRecord['error'][] = [];
  const fitted = async ({layer, forgetOthers}: FfnSite): Promise<FittedLayer> => {
    if (!fit) throw new Error('nothing is fitted');
    forgetOthers(); // while this layer is fitted, nobody needs the FFN of the one before
    const result = await fit.layer(layer);
    errors[layer] = result.error;
    return result;
  };
  const draw = routerDraw(method, seed);
  const drawn = draw && ((layer: number, experts: number) => drawRouter(draw, source.architecture, layer, experts));
  try {
    const ffn = (site: FfnSite): MadeTensor[] =>
      splitFfn(site, plan, {scale: scales[site.layer], fitted: fit && (() => fitted(site)), drawn});
    const neurons = renderNeuronMaps({maps: neuronMaps(plan), padding: provenance.padding});
    const recorded = (): Planned['provenance'] => withErrors(provenance, errors);
    await writeMoe(source, out, {architecture, provenance: recorded, neurons, ffn}, onProgress);
    return recorded();
  } finally {
    fit?.dispose();
  }
}

/** Refuses a plan that another model, or another method, was planned with. */
function requirePlanOf(
  plan: ConversionPlan,
  source: DenseSource,
  {method, model, profile, where = 'convert'}: ConvertOptions,
): void {
  const {numNeurons, architecture} = source;
  const [neurons, layers] = [plan.numNeurons - plan.padding, plan.layers.length];
  if (profile) requireProfileOf(profile, modelRecord(source), model);
  if (plan.method === method.method && neurons === numNeurons && layers === architecture.ffn.length) return;
  throw new ConfigError(
    `${where}: the plan is ${plan.method}'s of ${layers} layers of ${neurons} neurons; ${method.method} is to cut ${model}, which has ${architecture.ffn.length} layers of ${numNeurons}.`,
    {hint: 'Make it by planOf with the same options.'},
  );
}

function withErrors(provenance: Planned['provenance'], errors: readonly LayerRecord['error'][]): Planned['provenance'] {
  return {...provenance, layers: provenance.layers.map((layer, l) => ({...layer, error: errors[l] ?? null}))};
}

/** What must be fitted for a method; null if nothing. */
function fitOptionsOf(method: SplitOptions, seed: number): FitOptions | null {
  const refits = method.repair === 'refit';
  const {router, weights} = method.method === 'all-shared' ? ({router: 'gate-mean', weights: 'one'} as const) : method;
  const isNeeded = refits || router === 'ridge' || router === 'centroid';
  return isNeeded
    ? {router, seed, refits, refitWeight: method.repairWeight, weights: weights === 'score' ? weights : 'one'}
    : null;
}

/** How often neurons are dealt out anew by what a router chooses. */
function regroupRounds(method: SplitOptions): number {
  return method.method === 'all-shared' ? 0 : method.regroup;
}

/** Whether a conversion needs calibration text besides a profile. */
export function needsCalibration(method: SplitOptions): boolean {
  return fitOptionsOf(method, 0) !== null || regroupRounds(method) > 0;
}

function routerOf(method: SplitOptions): {readonly selectionBias: boolean; readonly router: RouterKind} {
  const router = method.method === 'all-shared' ? 'gate-mean' : method.router;
  return {
    selectionBias: router === 'ridge',
    router: router === 'representative' || router === 'mlp' ? router : 'linear',
  };
}

/** The plan that {@link convert} follows, without regrouping if there is no calibration text. @throws as it does. */
export async function planOf(options: Omit<ConvertOptions, 'out'>): Promise<ConversionPlan> {
  const source = await openDense(options.model);
  try {
    return await makePlan(source, options);
  } finally {
    await source.folder.close();
  }
}

/** The architecture that a plan makes of a dense one; unless said otherwise, softmax over all routed experts, as it is. */
export function splitArchitecture(
  dense: Architecture,
  plan: ConversionPlan,
  routing: Routing = SOFTMAX_ROUTING,
  {selectionBias = false, router = 'linear'}: {selectionBias?: boolean; router?: RouterKind} = {},
): Architecture {
  const ffn = plan.layers.map(({shared, experts, topK}): FfnLayout => {
    if (experts.length === 0) return {kind: 'dense', width: shared.length};
    const expertWidth = experts[0]?.length ?? 0;
    return {kind: 'moe', experts: experts.length, topK, expertWidth, sharedWidth: shared.length, selectionBias, router};
  });
  return {...dense, ffn, routing};
}

/** Weights 1 rank by logits, to which a fitted router adds its intercepts as selection bias. */
function routingOf(method: SplitOptions): Routing {
  if (method.method === 'all-shared' || method.weights === 'score') return SOFTMAX_ROUTING;
  if (method.weights === 'one-plus-scaled') return {...SOFTMAX_ROUTING, weight: method.weights};
  return {...SOFTMAX_ROUTING, order: 'topk-then-score', weight: 'one'};
}

async function makePlan(
  source: DenseSource,
  {method, profile, calibration, seed, model, where = 'convert'}: Omit<ConvertOptions, 'out'>,
): Promise<ConversionPlan> {
  const {architecture, numNeurons} = source;
  if (profile) requireProfileOf(profile, modelRecord(source), model);
  if (!profile && profileNeeds(method).profile) {
    throw new ConfigError(`${where}: method ${method.method} needs a profile of ${model}, none was given.`, {
      hint: 'Make one with `downcycle profile`.',
    });
  }
  const profiles = profile?.layers ?? architecture.ffn.map(() => unwatched(numNeurons));
  const gateRows = (layer: number): Promise<Float32Array> => readGateRows(source, layer);
  const cv = profile?.metadata.options.cv ?? 'tasks';
  const plan = await planConversion({method, profiles, gateRows, cv, seed, where});
  const rounds = regroupRounds(method);
  return calibration && rounds > 0 ? regroup(padDense(source, plan.padding), calibration, plan, rounds) : plan;
}

function routedScales(
  source: DenseSource,
  {method, routedScale, dryRun, where = 'convert'}: ConvertOptions,
): readonly number[] {
  const numLayers = source.architecture.ffn.length;
  const isMatched = isScaled(method);
  if (dryRun || (!isMatched && !routedScale)) return Array.from({length: numLayers}, () => 1);
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

function describeSplit(
  dense: DenseSource,
  {revision, method, seed, profile}: ConvertOptions,
  plan: ConversionPlan,
  scales: readonly number[],
): Extract<Provenance, {kind: 'split'}> {
  return {
    kind: 'split',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: sourceRecord(dense, revision),
    method,
    calibration: profile ? calibrationOf(profile) : null,
    neuronMapHash: planHash(plan),
    padding: plan.padding,
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
    error: null,
  };
}
