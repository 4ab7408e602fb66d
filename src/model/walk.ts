// A model one layer at a time: the hidden states of some text and the weights of one layer are in memory, not the model.

import {type Compiled, compile} from '../engine/compile.js';
import {returnLargeBlocks, trimHeaps} from '../engine/native/malloc.js';
import type {TensorTree} from '../engine/tensor-tree.js';
import * as tf from '../engine/tfjs.js';
import {createVariable, type Variable} from '../engine/variable.js';
import type {ModelFolder} from '../format/model-folder.js';
import {DataError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import type {Architecture, FfnLayout} from './architecture.js';
import type {AttentionContext} from './attention.js';
import {attentionContext} from './decoder.js';
import {FAMILIES} from './family/registry.js';
import {readParameter, requireOnes} from './load.js';
import {diskTensors} from './names.js';
import {type LayerTree, mapLayer, type ParameterSpec, parameterSpecs} from './parameters.js';

/** Tokens that go through a layer at once, about. */
const BATCH_TOKENS = 2048;

/** Text of equally long sequences. */
export interface WalkText {
  /** int32 [J, S] */
  readonly tokens: Int32Array;
  readonly sequenceLength: number;
}

/** What a function of a layer is given beside its inputs. */
export interface LayerScope {
  /** The weights of the layer that was loaded last. */
  readonly params: LayerTree<tf.Tensor>;
  readonly layout: FfnLayout;
  readonly context: AttentionContext;
}

/** Walks through a model, dense or not. */
export interface Walk {
  readonly architecture: Architecture;
  /** Sequences of a batch; all batches have as many. */
  readonly batchSize: number;
  /** The hidden states of every batch in turn, float32 [B·S, D] each; written back by whoever moves on. */
  readonly batches: readonly Float32Array[];
  /** Reads the weights of a layer. */
  load(layer: number): Promise<void>;
  /** The weights of the layer that was loaded last, as tensors of the caller's. */
  read(): LayerTree<tf.Tensor>;
  /** Lets go of those weights until a layer is loaded: for work that needs the memory more. */
  release(): void;
  /** Compiles a function of tensors and the loaded layer: once for all layers of the same shapes. */
  compile<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
    name: string,
    fn: (scope: LayerScope, ...inputs: Inputs) => Output,
  ): LayerFunction<Inputs, Output>;
  /** Has something disposed with the walk, such as a variable. */
  own<T extends Disposable>(part: T): T;
  /** Lets go of weights, of all that was compiled and of all that is owned. */
  dispose(): void;
}

/** A compiled function of tensors and of whichever layer is loaded. */
export type LayerFunction<Inputs extends readonly tf.Tensor[], Output extends TensorTree> = (
  ...inputs: Inputs
) => Promise<Output>;

interface Disposable {
  dispose(): void;
}

/** What layers of the same shapes have in common. */
interface Shelf {
  readonly layout: FfnLayout;
  readonly variables: LayerTree<Variable>;
  /** What was compiled on it, by what it was compiled from. */
  readonly compiled: Map<unknown, Disposable>;
}

/** Shelves that are kept: layers of a fourth kind take the place of those that were not used for longest. */
const MOST_SHELVES = 3;

/**
 * Starts a walk at the embeddings of a text.
 *
 * Layers of the same shapes share the memory of their weights, and that of three kinds of layers is kept at most.
 * @throws ModelError naming file and tensor if one is missing, of another shape, or has numbers where it must have ones.
 * @throws DataError if a token is outside the vocabulary.
 */
export async function startWalk(folder: ModelFolder, architecture: Architecture, text: WalkText): Promise<Walk> {
  requireKnown(text, architecture, folder.path);
  await requireOnes(folder.tensors, architecture);
  const {sequenceLength} = text;
  const sequences = text.tokens.length / sequenceLength;
  const batchSize = largestDivisor(sequences, mostSequences(sequenceLength));
  const hidden = await embeddings(folder, architecture, text.tokens);
  const batchNumbers = batchSize * sequenceLength * architecture.width;
  const shelves: Shelf[] = [];
  let shelf = takeShelf(architecture, 0, shelves);
  const scratch = new Float32Array(largestOf(architecture));
  const read = (): LayerTree<tf.Tensor> => mapLayer(shelf.variables, (variable) => variable.read());
  const owned: Disposable[] = [{dispose: returnLargeBlocks()}];
  const own = <T extends Disposable>(part: T): T => {
    owned.push(part);
    return part;
  };
  return {
    architecture,
    batchSize,
    batches: Array.from({length: sequences / batchSize}, (_, b) =>
      hidden.subarray(b * batchNumbers, (b + 1) * batchNumbers),
    ),
    load: async (layer) => {
      shelf = takeShelf(architecture, layer, shelves);
      await loadLayer(folder, architecture, layer, shelf.variables, scratch);
      await trimHeaps(); // what one layer leaves in holes between lasting blocks would stay, layer upon layer
    },
    read,
    release: () => void mapLayer(shelf.variables, (variable) => variable.release()),
    compile: (name, fn) =>
      compileByShelf(
        () => shelf,
        (...inputs) => {
          const context = attentionContext(architecture, batchSize, sequenceLength);
          return fn({params: read(), layout: shelf.layout, context}, ...inputs);
        },
        name,
      ),
    own,
    dispose: () => {
      for (const part of owned) part.dispose();
      shelves.forEach(disposeShelf);
    },
  };
}

/** Compiles `fn` anew for each shelf it is called on; it is traced while that shelf is the loaded one. */
function compileByShelf<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  loaded: () => Shelf,
  fn: (...inputs: Inputs) => Output,
  name: string,
): LayerFunction<Inputs, Output> {
  return (...inputs) => {
    const {compiled} = loaded();
    const known = (compiled.get(fn) as Compiled<Inputs, Output> | undefined) ?? compile(fn, {name});
    compiled.set(fn, known);
    return known(...inputs);
  };
}

/** The shelf of a layer, which becomes the last of all; the first makes room if there are too many. */
function takeShelf(architecture: Architecture, layer: number, shelves: Shelf[]): Shelf {
  const layout = architecture.ffn[layer];
  const specs = parameterSpecs(architecture).layers[layer];
  if (!layout || !specs) throw new Error(`there is no layer ${layer}`);
  const at = shelves.findIndex((shelf) => JSON.stringify(shelf.layout) === JSON.stringify(layout));
  const [known] = at >= 0 ? shelves.splice(at, 1) : [];
  if (!known && shelves.length === MOST_SHELVES) shelves.splice(0, 1).forEach(disposeShelf);
  const shelf = known ?? makeShelf(layout, specs);
  shelves.push(shelf);
  return shelf;
}

function makeShelf(layout: FfnLayout, specs: LayerTree<ParameterSpec>): Shelf {
  const variables = mapLayer(specs, ({path, shape}) =>
    createVariable(path, shape, new Float32Array(numElements(shape))),
  );
  return {layout, variables, compiled: new Map()};
}

function disposeShelf({variables, compiled}: Shelf): void {
  for (const fn of compiled.values()) fn.dispose();
  mapLayer(variables, (variable) => variable.dispose());
}

/** Hidden states of a batch as a tensor of the caller's, [T, D]. */
export function hiddenTensor({architecture: {width}}: Walk, values: Float32Array): tf.Tensor2D {
  return tf.tensor2d(values, [values.length / width, width]);
}

/** The least count of sequences, `count` or more, that full batches of a walk can be made of: for a prime number of them would go one by one. */
export function evenCount(count: number, sequenceLength: number): number {
  const batches = Math.ceil(count / mostSequences(sequenceLength));
  return batches * Math.ceil(count / batches);
}

/** Sequences of a batch at most. */
function mostSequences(sequenceLength: number): number {
  return Math.max(1, Math.floor(BATCH_TOKENS / sequenceLength));
}

/** The largest divisor of `count` that is at most `most`: batches of one size need one compiled function. */
function largestDivisor(count: number, most: number): number {
  for (let size = Math.min(most, count); size > 1; size--) if (count % size === 0) return size;
  return 1;
}

/** Refuses tokens that a model does not know. @throws DataError naming its folder and the first of them. */
export function requireKnown({tokens}: Pick<WalkText, 'tokens'>, {vocab}: Architecture, path: string): void {
  const stray = tokens.find((id) => id < 0 || id >= vocab);
  if (stray === undefined) return;
  throw new DataError(`${path}: token ${stray} of the text is outside the vocabulary of ${vocab}.`, {
    hint: 'Put the tokenizer beside the model that it was trained with.',
  });
}

/** Rows of the embedding, float32 [T, D]; each is read from the file once, however often its token comes. */
async function embeddings(folder: ModelFolder, architecture: Architecture, tokens: Int32Array): Promise<Float32Array> {
  const {width, multipliers} = architecture;
  const [{name} = {name: ''}] = diskTensors(parameterSpecs(architecture).embed, FAMILIES[architecture.family].names);
  const rows = new Map<number, Float32Array>();
  const hidden = new Float32Array(tokens.length * width);
  for (const [i, token] of tokens.entries()) {
    const row = rows.get(token) ?? (await folder.tensors.readRows(name, token, token + 1));
    rows.set(token, row);
    hidden.set(row, i * width);
  }
  return multipliers.embedding === 1 ? hidden : hidden.map((value) => value * multipliers.embedding);
}

/** Numbers of the largest parameter of any layer. */
function largestOf(architecture: Architecture): number {
  let largest = 0;
  for (const layer of parameterSpecs(architecture).layers) {
    mapLayer(layer, ({shape}) => {
      largest = Math.max(largest, numElements(shape));
    });
  }
  return largest;
}

async function loadLayer(
  folder: ModelFolder,
  architecture: Architecture,
  layer: number,
  variables: LayerTree<Variable>,
  scratch: Float32Array,
): Promise<void> {
  const specs = parameterSpecs(architecture).layers[layer];
  if (!specs) throw new Error(`there is no layer ${layer}`);
  const targets: Variable[] = [];
  mapLayer(variables, (variable) => targets.push(variable));
  const found: ParameterSpec[] = [];
  mapLayer(specs, (spec) => found.push(spec));
  for (const [i, spec] of found.entries()) {
    const value = tf.tensor(await readParameter(folder, architecture, spec, scratch), [...spec.shape]);
    targets[i]?.assign(value);
    value.dispose();
  }
}
