// Starting points that a downcycled model is compared with: copies of the dense FFN, changed or not, and nothing learned.
import type {FloatDtype} from '../format/dtype.js';
import {type Architecture, SOFTMAX_ROUTING} from '../model/architecture.js';
import type {ConfigRecord} from '../model/family/definition.js';
import {initialValues} from '../model/init.js';
import type {ParameterSpec} from '../model/parameters.js';
import {saveModel} from '../model/save.js';
import {refuseExisting} from '../util/atomic.js';
import {createRng} from '../util/rng.js';
import {
  type ExpertCut,
  type FfnSite,
  gluTensors,
  type MadeTensor,
  mixtureSpecs,
  type OnProgress,
  routerTensor,
  writeMoe,
} from './convert-source.js';
import {freshRouter} from './fresh-router.js';
import {type DenseSource, openDense, sourceRecord} from './model-source.js';
import {currentVersions, PROVENANCE_FILE, type Provenance, renderProvenance} from './provenance.js';
import {dropNeurons} from './upcycle/drop.js';
import {groupRows, requireShards, shardMatrix} from './upcycle/granular.js';
import type {ExpertStreams} from './upcycle/neurons.js';
import {addNoise} from './upcycle/noise.js';
import type {UpcycleMethod} from './upcycle-options.js';

/** How a dense model is copied into a mixture of experts. */
export interface UpcycleOptions {
  /** Folder of the dense model: `method.from`, resolved. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  readonly method: UpcycleMethod;
  readonly seed: number;
  /** Config path or `file:line:column` of the method, for messages. */
  readonly where?: string;
  readonly revision?: string;
}

/** What upcycling made. */
export interface Upcycling {
  readonly architecture: Architecture;
  readonly warnings: readonly string[];
}

/** A model that is to be made without learning anything first. */
export interface ScratchOptions {
  readonly architecture: Architecture;
  /** Folder to write; must not exist. */
  readonly out: string;
  readonly seed: number;
  /** Config whose other keys (token ids ...) are taken over. */
  readonly config?: ConfigRecord;
  readonly tokenizerFrom?: string;
  readonly dtype?: FloatDtype;
}

/**
 * Makes every expert out of a copy of the dense FFN, routers drawn at random.
 *
 * - sparse: copies bit for bit (arXiv 2212.05055);
 * - drop: a share of each copy's neurons drawn anew, see {@link dropNeurons};
 * - noise: copies with noise, see {@link addNoise};
 * - granular: copies of shards of the FFN under a router of virtual groups, see {@link shardMatrix}.
 *
 * With `renormalise` the weights of the chosen experts sum to one, so sparse upcycling starts out equal to the dense
 * model, and granular upcycling does where `topK` is a multiple of `shards`. What is copied keeps its bits, what is new
 * is rounded once to the dtype of the source. Each expert draws from streams of its own: adding experts changes none.
 * @throws ConfigError if shards do not divide the FFN.
 * @throws ModelError if the model is damaged or a mixture already.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function upcycle(options: UpcycleOptions, onProgress?: OnProgress): Promise<Upcycling> {
  await refuseExisting(options.out);
  const source = await openDense(options.model);
  try {
    const {method, where = 'upcycle'} = options;
    if (method.method === 'granular-upcycle') requireShards(source.numNeurons, method, where);
    const architecture = upcycledArchitecture(source, method);
    const provenance = describeUpcycling(source, options);
    const ffn = (site: FfnSite): MadeTensor[] => copyFfn(site, architecture, options);
    await writeMoe(source, options.out, {architecture, provenance, ffn}, onProgress);
    return {architecture, warnings: source.warnings};
  } finally {
    await source.folder.close();
  }
}

/**
 * Writes a model of some architecture with fresh weights: see {@link initialValues}.
 *
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function scratch(options: ScratchOptions): Promise<void> {
  const {architecture, out, seed, config, tokenizerFrom, dtype = 'F32'} = options;
  const provenance: Provenance = {kind: 'scratch', format: 1, versions: currentVersions(), seed, equivalence: null};
  await saveModel(out, {
    architecture,
    dtype,
    read: (spec) => initialValues(spec, architecture, seed),
    extraFiles: {[PROVENANCE_FILE]: renderProvenance(provenance)},
    ...(config && {config}),
    ...(tokenizerFrom !== undefined && {tokenizerFrom}),
  });
}

function upcycledArchitecture({architecture, numNeurons}: DenseSource, method: UpcycleMethod): Architecture {
  const {experts, topK, renormalise} = method;
  const expertWidth = numNeurons / shardsOf(method);
  const layout = {
    kind: 'moe',
    experts,
    topK,
    expertWidth,
    sharedWidth: 0,
    selectionBias: false,
    router: 'linear',
  } as const;
  return {...architecture, ffn: architecture.ffn.map(() => layout), routing: {...SOFTMAX_ROUTING, renormalise}};
}

/** Parts that the FFN is cut into; 1 where experts are copies of the whole. */
function shardsOf(method: UpcycleMethod): number {
  return method.method === 'granular-upcycle' ? method.shards : 1;
}

function copyFfn(site: FfnSite, architecture: Architecture, {method, seed}: UpcycleOptions): MadeTensor[] {
  const {router, experts} = mixtureSpecs(site);
  return [
    ...routerTensor(site, () => groupedRouter(router, architecture, shardsOf(method), seed)),
    ...gluTensors(site, experts, expertCut(method, site.layer, seed)),
  ];
}

/** Rows [E, D]; the experts of a virtual group, one for each shard, have the same. */
function groupedRouter(router: ParameterSpec, architecture: Architecture, shards: number, seed: number): Float32Array {
  const [width = 0, experts = 0] = router.shape;
  const groups = {...router, shape: [width, experts / shards]};
  return groupRows(freshRouter(groups, architecture, seed), width, shards);
}

function expertCut(method: UpcycleMethod, layer: number, seed: number): ExpertCut {
  const streamsOf =
    (expert: number): ExpertStreams =>
    (purpose) =>
      createRng(seed, `upcycle/layers.${layer}/experts.${expert}/${purpose}`);
  switch (method.method) {
    case 'sparse-upcycle':
      return ({bytes}) => bytes;
    case 'drop-upcycle':
      return (matrix, which, expert) => dropNeurons(matrix, which, method.ratio, streamsOf(expert));
    case 'noise-upcycle':
      return (matrix, which, expert) => addNoise(matrix, which, method, streamsOf(expert));
    case 'granular-upcycle':
      return (matrix, which, expert) => shardMatrix(matrix, which, expert, method);
  }
}

function describeUpcycling(dense: DenseSource, {revision, method, seed}: UpcycleOptions): Provenance {
  return {
    kind: 'upcycle',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: sourceRecord(dense, revision),
    method,
  };
}
