// The tensors of a mixture of experts that are made out of a model on disk, one at a time.
import {DTYPE_BYTES, type FloatDtype, isFloatDtype, widen} from '../format/dtype.js';
import {writeModelFolder} from '../format/model-folder.js';
import type {TensorSpec} from '../format/safetensors-header.js';
import type {Architecture} from '../model/architecture.js';
import {architectureToConfig} from '../model/config.js';
import {diskTensors} from '../model/names.js';
import {type FfnTree, type GluTree, type ParameterSpec, parameterSpecs} from '../model/parameters.js';
import {ModelError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import type {GluMatrix, RawMatrix} from './convert-gather.js';
import {requireFinite, requireFiniteWeights} from './finite-weights.js';
import type {DenseSource, ModelSource} from './model-source.js';
import {NEURONS_FILE} from './neuron-maps.js';
import {PROVENANCE_FILE, type Provenance, renderProvenance} from './provenance.js';

/** A tensor to be written and how to come by it. */
export interface MadeTensor {
  readonly spec: TensorSpec;
  readonly make: () => Promise<Float32Array | Uint8Array> | Float32Array;
}

/** A matrix as it stands in the file, with its dtype. */
export interface StoredMatrix extends RawMatrix {
  readonly dtype: FloatDtype;
}

/** The dense FFN of a layer, and the parameters that the mixture has in its place. */
export interface FfnSite {
  readonly layer: number;
  readonly specs: FfnTree<ParameterSpec>;
  readonly names: Readonly<Record<string, string>>;
  /** Dtype of each dense matrix. */
  readonly dtypes: GluTree<FloatDtype>;
  /** Reads the three matrices, once for all tensors of the layer; [F, D], [F, D], [D, F]. */
  readonly read: () => Promise<GluTree<StoredMatrix>>;
  /** Lets go of what was read last if it is of another layer. */
  readonly forgetOthers: () => void;
}

/** Told after each tensor how many of all are written. */
export type OnProgress = (done: number, total: number) => void;

/** What is said of a new MoE folder. */
interface MoeHead {
  readonly architecture: Architecture;
  /** A function where making the tensors tells what is to be recorded. */
  readonly provenance: Provenance | (() => Provenance);
  /** The bytes of {@link NEURONS_FILE}, if experts are made of the neurons of the source. */
  readonly neurons?: Uint8Array;
}

/** What a new MoE folder is made of. */
export interface MoeContent extends MoeHead {
  /** The tensors of one layer's mixture. */
  readonly ffn: (site: FfnSite) => MadeTensor[];
}

/**
 * `gate_proj.weight` of a layer, float32 [F, D].
 *
 * @throws ModelError if a number of it is not finite.
 */
export async function readGateRows(source: DenseSource, layer: number): Promise<Float32Array> {
  const {gate} = denseFfn(source, layer);
  const matrix = await readMatrix(source, gate);
  requireFinite(source.folder.tensors, gate.name, matrix.bytes, gate.dtype);
  return valuesOf(matrix);
}

/**
 * Writes an MoE folder out of a dense one, whole or not at all: all but the FFNs copied bit for bit, tokenizer files
 * and config keys taken over. The peak is the FFN of one layer and one tensor more.
 *
 * @throws EnvironmentError if something stands at `out` or the disk is full; ModelError if a weight is not finite, before
 * anything is written.
 */
export function writeMoe(
  source: DenseSource,
  out: string,
  content: MoeContent,
  onProgress?: OnProgress,
): Promise<void> {
  return writeTensors(source, out, content, allTensors(source, content), onProgress);
}

/** The same of tensors that are there. @throws as {@link writeMoe} does. */
export async function writeTensors(
  source: ModelSource,
  out: string,
  {architecture, provenance, neurons}: MoeHead,
  tensors: readonly MadeTensor[],
  onProgress?: OnProgress,
): Promise<void> {
  const {folder} = source;
  await requireFiniteWeights(folder.tensors, source.architecture);
  const byName = new Map(tensors.map((tensor) => [tensor.spec.name, tensor]));
  let done = 0;
  await writeModelFolder(out, {
    config: architectureToConfig(architecture, folder.config),
    entries: tensors.map(({spec}) => spec),
    read: async (name) => {
      const data = await byName.get(name)?.make();
      if (!data) throw new Error(`nobody asked for tensor ${name}`);
      onProgress?.(++done, tensors.length);
      return data;
    },
    copyFrom: folder.path,
    extraFiles: {
      [PROVENANCE_FILE]: () => renderProvenance(typeof provenance === 'function' ? provenance() : provenance),
      ...(neurons && {[NEURONS_FILE]: neurons}),
    },
  });
}

/** Gives the bytes or numbers of one matrix of one expert out of the dense one. */
export type ExpertCut = (
  matrix: StoredMatrix,
  which: GluMatrix,
  expert: number,
) => Float32Array | Uint8Array | Promise<Float32Array | Uint8Array>;

/** The tensors of a GLU or of stacked ones. */
export function gluTensors(
  {names, dtypes, read}: FfnSite,
  specs: GluTree<ParameterSpec>,
  cut: ExpertCut,
): MadeTensor[] {
  return (['gate', 'up', 'down'] as const).flatMap((which) =>
    diskTensors(specs[which], names).map(({name, shape}, expert) => ({
      spec: {name, shape, dtype: dtypes[which]},
      make: async () => cut((await read())[which], which, expert),
    })),
  );
}

/** The router's tensor, float32 [E, D] whatever the dtype of the source, as in `saveModel`. */
export function routerTensor(site: FfnSite, make: MadeTensor['make']): MadeTensor[] {
  return floatTensor(site, mixtureSpecs(site).router, make);
}

/** The second matrix of a router that is not linear, float32 [E, D]. */
export function routerUpTensor(site: FfnSite, make: MadeTensor['make']): MadeTensor[] {
  const {routerUp} = mixtureSpecs(site);
  return routerUp ? floatTensor(site, routerUp, make) : [];
}

/** The second layer of a router of two, float32 [E, E]. */
export function routerOutTensor(site: FfnSite, make: MadeTensor['make']): MadeTensor[] {
  const {routerOut} = mixtureSpecs(site);
  return routerOut ? floatTensor(site, routerOut, make) : [];
}

/** The selection bias, float32 [E]; none where the router has none. */
export function biasTensor(site: FfnSite, make: MadeTensor['make']): MadeTensor[] {
  const {bias} = mixtureSpecs(site);
  return bias ? floatTensor(site, bias, make) : [];
}

/** What scores count in weights of one and a scaled score, float32 [E]: zeros; none where weights are others. */
export function scaleTensor(site: FfnSite): MadeTensor[] {
  const {scale} = mixtureSpecs(site);
  return scale ? floatTensor(site, scale, () => new Float32Array(scale.shape[0] ?? 0)) : [];
}

/** The bias of each expert, [D], in the dtype of the down projection that it joins; none where experts have none. */
export function expertBiasTensors(
  {names, dtypes, specs}: FfnSite,
  make: (expert: number) => Promise<Float32Array>,
): MadeTensor[] {
  if (specs.kind === 'dense' || !specs.expertBias) return [];
  return diskTensors(specs.expertBias, names).map(({name, shape}, expert) => ({
    spec: {name, shape, dtype: dtypes.down},
    make: () => make(expert),
  }));
}

/** The parameters that a layer's mixture has; a layer of a plan without experts has none. */
export function mixtureSpecs({layer, specs}: FfnSite): Extract<FfnTree<ParameterSpec>, {kind: 'moe'}> {
  if (specs.kind === 'moe') return specs;
  throw new Error(`layer ${layer} has no experts`);
}

function floatTensor({names}: FfnSite, spec: ParameterSpec, make: MadeTensor['make']): MadeTensor[] {
  return diskTensors(spec, names).map(({name, shape}) => ({spec: {name, shape, dtype: 'F32'}, make}));
}

/** The numbers of a matrix, float32. */
export function valuesOf({bytes, dtype}: Pick<StoredMatrix, 'bytes' | 'dtype'>): Float32Array {
  return widen(bytes, dtype);
}

/** Bytes of the tensors that {@link writeMoe} would write. */
export function moeBytes(source: DenseSource, content: MoeContent): number {
  return bytesOf(allTensors(source, content));
}

/** Bytes of tensors to be written. */
export function bytesOf(tensors: readonly MadeTensor[]): number {
  return tensors.reduce((sum, {spec}) => sum + numElements(spec.shape) * DTYPE_BYTES[spec.dtype], 0);
}

function allTensors(source: DenseSource, {architecture, ffn}: MoeContent): MadeTensor[] {
  const readFfn = keepLast((layer: number) => readDenseFfn(source, layer));
  return tensorsAround(source, architecture, (layer, specs) => ffn(siteOf(source, layer, specs, readFfn)));
}

/** All tensors of a model: those of its FFNs as they are made, the others as they stand in the source. */
export function tensorsAround(
  source: ModelSource,
  architecture: Architecture,
  ffn: (layer: number, specs: FfnTree<ParameterSpec>) => MadeTensor[],
): MadeTensor[] {
  const tree = parameterSpecs(architecture);
  const copy = (spec: ParameterSpec | null): MadeTensor[] => copied(source, spec);
  return [
    ...copy(tree.embed),
    ...tree.layers.flatMap((layer, l) => [
      ...copy(layer.attentionNorm),
      ...Object.values(layer.attention).flatMap(copy),
      ...copy(layer.ffnNorm),
      ...ffn(l, layer.ffn),
    ]),
    ...copy(tree.norm),
    ...copy(tree.head),
  ];
}

/** The tensors of a parameter as they stand in the source; none of a parameter that is not there. */
export function copied({folder, names}: ModelSource, spec: ParameterSpec | null): MadeTensor[] {
  if (!spec) return [];
  return diskTensors(spec, names).map(({name}) => {
    const {dtype, shape} = folder.tensors.info(name);
    return {spec: {name, dtype, shape}, make: () => folder.tensors.readBytes(name)};
  });
}

function siteOf(
  source: DenseSource,
  layer: number,
  specs: FfnSite['specs'],
  readFfn: KeptRead<number, GluTree<StoredMatrix>>,
): FfnSite {
  const {gate, up, down} = denseFfn(source, layer);
  const dtypes = {gate: gate.dtype, up: up.dtype, down: down.dtype};
  return {
    layer,
    specs,
    names: source.names,
    dtypes,
    read: () => readFfn(layer),
    forgetOthers: () => readFfn.keepOnly(layer),
  };
}

async function readDenseFfn(source: DenseSource, layer: number): Promise<GluTree<StoredMatrix>> {
  const {gate, up, down} = denseFfn(source, layer);
  return {gate: await readMatrix(source, gate), up: await readMatrix(source, up), down: await readMatrix(source, down)};
}

/** A tensor of real numbers in a file. */
export interface FloatTensor {
  readonly name: string;
  readonly dtype: FloatDtype;
  readonly shape: readonly number[];
}

/** The three tensors of a dense FFN. @throws ModelError if one is not made of real numbers. */
function denseFfn(source: DenseSource, layer: number): GluTree<FloatTensor> {
  const {architecture, names} = source;
  const ffn = parameterSpecs(architecture).layers[layer]?.ffn;
  if (ffn?.kind !== 'dense') throw new Error(`layer ${layer} of a dense model is not dense`);
  const find = (spec: ParameterSpec): FloatTensor => {
    const [name = ''] = diskTensors(spec, names).map((tensor) => tensor.name);
    return storedTensor(source, name);
  };
  return {gate: find(ffn.gate), up: find(ffn.up), down: find(ffn.down)};
}

/** A tensor of the source. @throws ModelError if it is not made of real numbers. */
export function storedTensor({folder}: ModelSource, name: string): FloatTensor {
  const {dtype, shape} = folder.tensors.info(name);
  if (isFloatDtype(dtype)) return {name, dtype, shape};
  throw new ModelError(`${folder.path}: tensor "${name}" is ${dtype}; real numbers were asked for.`);
}

/** Reads a matrix as it stands in the file. */
export async function readMatrix({folder}: ModelSource, {name, dtype, shape}: FloatTensor): Promise<StoredMatrix> {
  const [rows = 0, columns = 0] = shape;
  return {bytes: await folder.tensors.readBytes(name), rows, columns, elementBytes: DTYPE_BYTES[dtype], dtype};
}

/** A function that remembers its last result; `keepOnly` forgets it unless it is of that key. */
type KeptRead<Key, T> = ((key: Key) => Promise<T>) & {readonly keepOnly: (key: Key) => void};

/** Remembers the last result only: what was read for one key is let go when the next one is asked for. */
export function keepLast<Key, T>(read: (key: Key) => Promise<T>): KeptRead<Key, T> {
  let last: {readonly key: Key; readonly value: T} | null = null;
  const readKept = async (key: Key): Promise<T> => {
    if (last?.key !== key) {
      last = null;
      last = {key, value: await read(key)};
    }
    return last.value;
  };
  const keepOnly = (key: Key): void => {
    if (last?.key !== key) last = null;
  };
  return Object.assign(readKept, {keepOnly});
}
