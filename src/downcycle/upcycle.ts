// Starting points that a downcycled model is compared with: copies of the dense FFN (arXiv 2212.05055), and nothing learned.
import type {FloatDtype} from '../format/dtype.js';
import {type Architecture, SOFTMAX_ROUTING} from '../model/architecture.js';
import type {ConfigRecord} from '../model/family/definition.js';
import {initialValues} from '../model/init.js';
import type {ParameterSpec} from '../model/parameters.js';
import {saveModel} from '../model/save.js';
import {refuseExisting} from '../util/atomic.js';
import {transpose} from '../util/transpose.js';
import {
  type DenseSource,
  type FfnSite,
  gluTensors,
  type MadeTensor,
  type OnProgress,
  openDense,
  routerTensor,
  writeMoe,
} from './convert-source.js';
import type {MethodOptions} from './options.js';
import {currentVersions, PROVENANCE_FILE, type Provenance, renderProvenance} from './provenance.js';

/** How a dense model is copied into a mixture of experts. */
export interface UpcycleOptions {
  /** Folder of the dense model: `method.from`, resolved. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  readonly method: Extract<MethodOptions, {method: 'sparse-upcycle'}>;
  readonly seed: number;
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
 * Sparse upcycling: every expert is a copy of the dense FFN, bit for bit; routers are drawn at random.
 *
 * With `renormalise` the weights of the chosen experts sum to one, so the model starts out equal to the dense one.
 * @throws ModelError if the model is damaged or a mixture already.
 * @throws EnvironmentError if something stands at `out` or the disk is full; nothing is left behind then.
 */
export async function upcycle(options: UpcycleOptions, onProgress?: OnProgress): Promise<Upcycling> {
  await refuseExisting(options.out);
  const source = await openDense(options.model);
  try {
    const architecture = upcycledArchitecture(source, options.method);
    const provenance = describeUpcycling(source, options);
    const ffn = (site: FfnSite): MadeTensor[] => copyFfn(site, architecture, options.seed);
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

function upcycledArchitecture(
  {architecture, numNeurons}: DenseSource,
  {experts, topK, renormalise}: UpcycleOptions['method'],
): Architecture {
  const layout = {kind: 'moe', experts, topK, expertWidth: numNeurons, sharedWidth: 0, selectionBias: false} as const;
  return {...architecture, ffn: architecture.ffn.map(() => layout), routing: {...SOFTMAX_ROUTING, renormalise}};
}

function copyFfn(site: FfnSite, architecture: Architecture, seed: number): MadeTensor[] {
  const {router, experts} = site.specs;
  return [
    ...routerTensor(site, () => routerOnDisk(router, initialValues(router, architecture, seed))),
    ...gluTensors(site, experts, ({bytes}) => bytes),
  ];
}

/** [D, E] to [E, D]. */
function routerOnDisk({shape}: ParameterSpec, values: Float32Array): Float32Array {
  const [width = 0, experts = 0] = shape;
  const transposed = new Float32Array(values.length);
  transpose(values, width, experts, transposed);
  return transposed;
}

function describeUpcycling({fingerprint}: DenseSource, {model, revision, method, seed}: UpcycleOptions): Provenance {
  return {
    kind: 'upcycle',
    format: 1,
    versions: currentVersions(),
    seed,
    equivalence: null,
    source: {path: model, revision: revision ?? null, fingerprint},
    method,
  };
}
