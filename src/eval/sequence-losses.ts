// Losses of the ends of many sequences of any lengths, layer by layer: what multiple choice and perplexity are made of.
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from '../model/architecture.js';
import {evenCount, requireKnown, startWalk, type Walk, type WalkText} from '../model/walk.js';
import {openHead} from '../model/walk-head.js';
import {compileLayer, passLayers} from '../model/walk-layer.js';
import {ModelError} from '../util/errors.js';
import {passRouted, type SeeRoutes} from './routed-layers.js';

/** Tokens of which the last ones are foretold. */
export interface Sequence {
  /** int32 [S + 1]: what goes through the model, and the last token to be foretold. */
  readonly tokens: Int32Array;
  /** The first token that counts, 1 or later. */
  readonly from: number;
}

/** How far a model is: the layer that comes, of how many, in which walk through the model. */
export interface LayerProgress {
  readonly layer: number;
  readonly layers: number;
  readonly walk: number;
  readonly walks: number;
}

/** Who is told of what happens on the way. */
export interface SequenceWatch {
  readonly onLayer?: ((progress: LayerProgress) => void) | undefined;
  /** Owners are the sequences whose counted tokens are foretold. */
  readonly onRoutes?: SeeRoutes | undefined;
}

/** Numbers of hidden states that are held at once, 512 MB: more sequences go through the model in another walk. */
const MOST_NUMBERS = 2 ** 27;
/** Positions that are padded at most, of the longest sequence of a walk; but a few do not matter. */
const MOST_PADDING = 1 / 4;
const FEW_POSITIONS = 8;
/** Positions that go through the head at once. */
const HEAD_ROWS = 1024;

/**
 * The sum of the losses of each sequence's counted tokens, in nats, computed in float32. The engine must have been started.
 *
 * Sequences of nearly one length walk together, those that are shorter padded behind: attention is causal, so that what
 * stands behind changes nothing.
 * @throws DataError if a token is outside the vocabulary.
 * @throws ModelError naming file and tensor if one is missing or of another shape, or if a loss is not finite.
 */
export async function sequenceLosses(
  folder: ModelFolder,
  architecture: Architecture,
  sequences: readonly Sequence[],
  {onLayer, onRoutes}: SequenceWatch = {},
): Promise<Float64Array> {
  for (const sequence of sequences) requireKnown(sequence, architecture, folder.path);
  const sums = new Float64Array(sequences.length);
  const groups = groupByLength(
    sequences.map(({tokens}) => tokens.length - 1),
    Math.floor(MOST_NUMBERS / architecture.width),
  );
  const layers = architecture.ffn.length;
  for (const [walk, group] of groups.entries()) {
    const members = group.map((i) => sequences[i] as Sequence);
    const found = await walkLosses(folder, architecture, members, {
      onLayer: (layer) => onLayer?.({layer: layer + 1, layers, walk: walk + 1, walks: groups.length}),
      onRoutes: onRoutes && ((layer, expert_TK, member_T) => onRoutes(layer, expert_TK, inGroup(group, member_T))),
    });
    for (const [k, i] of group.entries()) sums[i] = found[k] as number;
  }
  if (sums.every(Number.isFinite)) return sums;
  throw new ModelError(`${folder.path}: a loss is not a finite number.`, {
    hint: 'Look for weights that are not finite.',
  });
}

/**
 * Which sequences walk together, the longest first: of nearly one length, and of `mostPositions` at most when all are as
 * long as the longest. A sequence that is longer by itself walks alone.
 */
export function groupByLength(lengths: readonly number[], mostPositions: number): number[][] {
  const order = lengths.map((_, i) => i).sort((a, b) => lengthAt(lengths, b) - lengthAt(lengths, a));
  const groups: number[][] = [];
  let longest = 0;
  for (const i of order) {
    const last = groups.at(-1);
    const padding = longest - lengthAt(lengths, i);
    const isNear = padding <= Math.max(FEW_POSITIONS, longest * MOST_PADDING);
    if (last && isNear && evenCount(last.length + 1, longest) * longest <= mostPositions) {
      last.push(i);
    } else {
      longest = lengthAt(lengths, i);
      groups.push([i]);
    }
  }
  return groups;
}

/** Members of a group as places in all; −1 stays. */
function inGroup(group: readonly number[], member_T: Int32Array): Int32Array {
  return member_T.map((member) => group[member] ?? -1);
}

function lengthAt(lengths: readonly number[], i: number): number {
  return lengths[i] as number;
}

/** The same for sequences of one walk, the first of which is the longest. */
async function walkLosses(
  folder: ModelFolder,
  architecture: Architecture,
  sequences: readonly Sequence[],
  {onLayer, onRoutes}: {readonly onLayer: (layer: number) => void; readonly onRoutes: SeeRoutes | undefined},
): Promise<Float64Array> {
  const text = paddedText(sequences);
  const walk = await startWalk(folder, architecture, text);
  try {
    if (onRoutes) await passRouted(walk, ownersOf(sequences, text), onLayer, onRoutes);
    else await passLayers(walk, compileLayer(walk), onLayer);
    return await headSums(folder, walk, text, sequences);
  } finally {
    walk.dispose();
  }
}

/** Sequences without their last tokens, zeros behind the shorter ones, and so many of zeros that batches are full. */
function paddedText(sequences: readonly Sequence[]): WalkText {
  const sequenceLength = (sequences[0]?.tokens.length ?? 0) - 1;
  const tokens = new Int32Array(evenCount(sequences.length, sequenceLength) * sequenceLength);
  for (const [i, sequence] of sequences.entries()) tokens.set(sequence.tokens.subarray(0, -1), i * sequenceLength);
  return {tokens, sequenceLength};
}

/** The sequence of which each position of a text foretells a token that counts; −1 for the others. */
function ownersOf(sequences: readonly Sequence[], {tokens, sequenceLength}: WalkText): Int32Array {
  const owner_T = new Int32Array(tokens.length).fill(-1);
  for (const [i, {tokens: own, from}] of sequences.entries()) {
    owner_T.fill(i, i * sequenceLength + from - 1, i * sequenceLength + own.length - 1);
  }
  return owner_T;
}

/** Losses of the counted tokens, summed by sequence; no other position goes through the head. */
async function headSums(
  folder: ModelFolder,
  walk: Walk,
  text: WalkText,
  sequences: readonly Sequence[],
): Promise<Float64Array> {
  const {width} = walk.architecture;
  const head = await openHead(folder, walk, text);
  const sums = new Float64Array(sequences.length);
  const hidden = new Float32Array(HEAD_ROWS * width);
  const labels = new Int32Array(HEAD_ROWS);
  const owners = new Int32Array(HEAD_ROWS);
  let filled = 0;
  const flush = async (): Promise<void> => {
    const losses = await head.labelLosses(hidden, labels.fill(-1, filled));
    for (let row = 0; row < filled; row++) {
      const owner = owners[row] as number;
      sums[owner] = (sums[owner] as number) + (losses[row] as number);
    }
    filled = 0;
  };
  for (const [i, {tokens, from}] of sequences.entries()) {
    for (let t = from; t < tokens.length; t++) {
      hidden.set(hiddenAt(walk, i * text.sequenceLength + t - 1), filled * width);
      labels[filled] = tokens[t] as number;
      owners[filled++] = i;
      if (filled === HEAD_ROWS) await flush();
    }
  }
  if (filled > 0) await flush();
  return sums;
}

/** The hidden state of a position of a walk's text, counted through all batches. */
function hiddenAt({batches, architecture: {width}}: Walk, position: number): Float32Array {
  const size = (batches[0]?.length ?? 0) / width;
  const start = (position % size) * width;
  return (batches[Math.floor(position / size)] as Float32Array).subarray(start, start + width);
}
