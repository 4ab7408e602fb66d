// Proof of a conversion: with every expert at work, the mixture must compute what the dense model computes.
import * as tf from '../engine/tfjs.js';
import {DTYPE_BYTES} from '../format/dtype.js';
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import {type Architecture, type FfnLayout, SOFTMAX_ROUTING} from '../model/architecture.js';
import {decoderLayer} from '../model/decoder.js';
import type {LayerTree} from '../model/parameters.js';
import {type LayerFunction, startWalk, type Walk, type WalkText} from '../model/walk.js';
import {headLogits} from '../model/walk-head.js';
import {passLayer} from '../model/walk-layer.js';
import {DataError, ModelError} from '../util/errors.js';
import {differenceOf} from './difference.js';
import type {DiveOptions} from './dive-options.js';
import {openModel} from './model-source.js';
import {type Proof, type Provenance, readProvenance} from './provenance.js';
import {granularFactor} from './upcycle/granular.js';
import type {UpcycleMethod} from './upcycle-options.js';

/** Largest difference allowed, as a share of the largest dense logit: fifteen times the float32 noise of SmolLM2-135M. */
const TOLERANCE = 5e-5;
/** The same where factors were folded into weights of 16 bits, and cannot be taken out again exactly. */
const ROUNDED_TOLERANCE = 2e-2;

/** Token ids of some sequences, all equally long. */
type Sequences = readonly (readonly number[])[];

/**
 * Runs a dense model and the mixture made out of it on the same tokens and compares their logits; one layer of one
 * model is in memory at a time, besides its head. The engine must have been started.
 *
 * A split runs with all its experts at weight 1, factors folded into it taken out, and a mixture whose experts were cut once
 * more with all of those at weight 1 inside experts that weigh what its routers say, as its parent's do; copies of the FFN, pruned ones that
 * keep every neuron too, run with all experts at weights that sum to 1, and copies of its shards so that those of each
 * shard do.
 * @param sequences a few hundred tokens in all are plenty.
 * @throws ModelError if a folder is damaged, the mixture has no record, was made from scratch or changed on purpose when it
 * was copied, or logits are not finite.
 * @throws DataError if there are no tokens, sequences differ in length, or a token is outside the vocabulary.
 */
export async function proveConversion(dense: string, mixture: string, sequences: Sequences): Promise<Proof> {
  const provenance = await readProvenance(mixture);
  requireProvable(provenance, mixture);
  const factors = provenance.kind === 'split' ? provenance.layers.map(({routedScale}) => routedScale) : [];
  const isRounded = roundsWeights(provenance) && (await hasShortExperts(mixture));
  const text = textOf(sequences);
  const expected = await withModel(dense, (folder, architecture) =>
    logitsOf(folder, parentArchitecture(architecture), text),
  );
  const received = await withModel(mixture, (folder, architecture) => {
    requireSameVocabulary(expected.length / text.tokens.length, architecture.vocab, dense, mixture);
    return logitsOf(folder, proofArchitecture(architecture, provenance), text, factors);
  });
  return compareLogits(expected, received, isRounded ? ROUNDED_TOLERANCE : TOLERANCE, text.tokens.length);
}

/**
 * Compares logits; the limit is `tolerance` times the largest expected one, and at least `tolerance` itself.
 *
 * @throws ModelError if a logit is not finite: nothing could be said about the rest.
 */
export function compareLogits(
  expected: Float32Array,
  received: Float32Array,
  tolerance: number,
  tokens: number,
): Proof {
  if (expected.length !== received.length) {
    throw new RangeError(`${received.length} logits cannot be compared with ${expected.length}`);
  }
  let maxLogitDifference = 0;
  let largest = 1;
  for (let i = 0; i < expected.length; i++) {
    const value = expected[i] as number;
    const difference = Math.abs(value - (received[i] as number));
    if (!Number.isFinite(difference)) {
      throw new ModelError(
        `A logit of the dense model is ${value}, of the mixture ${received[i]}: nothing can be proved.`,
      );
    }
    if (difference > maxLogitDifference) maxLogitDifference = difference;
    if (Math.abs(value) > largest) largest = Math.abs(value);
  }
  const limit = tolerance * largest;
  return {maxLogitDifference, limit, passed: maxLogitDifference <= limit, tokens};
}

/** Logits of every position of a text, [tokens, V]; the weights of one layer are in memory at a time. */
async function logitsOf(
  folder: ModelFolder,
  architecture: Architecture,
  text: WalkText,
  factors: readonly number[] = [],
): Promise<Float32Array> {
  const walk = await startWalk(folder, architecture, text);
  const layer = compileProofLayer(walk);
  try {
    for (let l = 0; l < architecture.ffn.length; l++) {
      await walk.load(l);
      const factor = tf.scalar(factors[l] ?? 1);
      try {
        await passLayer(walk, (x_TD) => layer(x_TD, factor));
      } finally {
        factor.dispose();
      }
    }
    return await headLogits(folder, walk, text);
  } finally {
    walk.dispose();
  }
}

/** A layer with a factor taken out of its experts, if it has any. */
function compileProofLayer(walk: Walk): LayerFunction<[tf.Tensor2D, tf.Scalar], tf.Tensor> {
  return walk.compile('proof_layer', ({params, layout, context}, x_TD: tf.Tensor2D, factor: tf.Scalar) => {
    const {next_TD} = decoderLayer(x_TD, withoutFactor(params, factor), layout, walk.architecture, context);
    return next_TD;
  });
}

type DerivedProvenance = Exclude<Provenance, {kind: 'scratch'}>;

function requireProvable(provenance: Provenance, mixture: string): asserts provenance is DerivedProvenance {
  if (provenance.kind === 'scratch') {
    throw new ModelError(`${mixture} was drawn at random: there is no dense model it could be equal to.`);
  }
  const difference = differenceOf(provenance.method);
  if (difference === null) return;
  throw new ModelError(`${mixture} is not meant to equal a dense model: ${difference}.`);
}

/** Whether weights were multiplied with what 16 bits cannot carry exactly. */
function roundsWeights(provenance: DerivedProvenance): boolean {
  if (provenance.kind === 'split') return provenance.layers.some(({routedScale}) => routedScale !== 1);
  if (provenance.kind === 'inner-split') return false;
  const {method} = provenance;
  return method.method === 'granular-upcycle' && !Number.isInteger(Math.log2(granularFactor(method)));
}

/** A mixture whose experts were cut again has all of them at work, so that nothing hangs on a choice between near equals. */
function parentArchitecture(architecture: Architecture): Architecture {
  return {...architecture, ffn: architecture.ffn.map(everyExpert)};
}

/** All experts chosen, and all of those inside them at weight 1. */
function everyExpert(layout: FfnLayout): FfnLayout {
  if (layout.kind === 'dense') return layout;
  const {inner} = layout;
  const all = inner && ({...inner, topK: inner.experts, weight: 'one'} as const);
  return {...layout, topK: layout.experts, ...(all && {inner: all})};
}

/** All experts chosen: each at weight 1 where they are parts of the FFN, all summing to 1 where they are copies of it. */
function proofArchitecture(architecture: Architecture, provenance: DerivedProvenance): Architecture {
  const ffn = architecture.ffn.map(everyExpert);
  if (provenance.kind === 'inner-split') return {...architecture, ffn};
  const weights =
    provenance.kind === 'split' ? {weight: 'one' as const} : {renormalise: true, scale: copyScale(provenance.method)};
  return {...architecture, ffn, routing: {...SOFTMAX_ROUTING, ...weights}};
}

/** Takes the factor out that shards were multiplied with, and makes the copies of each weigh 1 instead of all experts. */
function copyScale(method: UpcycleMethod | DiveOptions): number {
  return method.method === 'granular-upcycle' ? method.shards / granularFactor(method) : 1;
}

function withoutFactor(layer: LayerTree<tf.Tensor>, factor: tf.Scalar): LayerTree<tf.Tensor> {
  const {ffn} = layer;
  if (ffn.kind === 'dense') return layer;
  return {...layer, ffn: {...ffn, experts: {...ffn.experts, down: tf.div(ffn.experts.down, factor)}}};
}

async function withModel<T>(
  path: string,
  use: (folder: ModelFolder, architecture: Architecture) => Promise<T>,
): Promise<T> {
  const {folder, architecture} = await openModel(path);
  try {
    return await use(folder, architecture);
  } finally {
    await folder.close();
  }
}

/** Whether experts are stored in 16 bits. */
async function hasShortExperts(path: string): Promise<boolean> {
  const folder = await openModelFolder(path);
  try {
    const {tensors} = folder;
    return tensors.names.some((name) => name.includes('.experts.') && DTYPE_BYTES[tensors.info(name).dtype] < 4);
  } finally {
    await folder.close();
  }
}

function textOf(sequences: Sequences): WalkText {
  const [{length: sequenceLength} = {length: 0}] = sequences;
  if (sequenceLength === 0 || sequences.some(({length}) => length !== sequenceLength)) {
    const lengths = sequences.length === 0 ? 'none' : sequences.map(({length}) => length).join(', ');
    throw new DataError(`A proof needs sequences of equally many tokens, one at least; those given have ${lengths}.`, {
      hint: 'Cut them to the length of the shortest.',
    });
  }
  return {tokens: Int32Array.from(sequences.flat()), sequenceLength};
}

function requireSameVocabulary(denseVocab: number, vocab: number, dense: string, mixture: string): void {
  if (denseVocab === vocab) return;
  throw new ModelError(`${mixture} has a vocabulary of ${vocab}, ${dense} one of ${denseVocab}: it is not its parent.`);
}
