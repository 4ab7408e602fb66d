// How well a model foretells a text: perplexity over windows of tokens, layer by layer.
import {pathText} from '../data/path.js';
import {readDocuments, type Source} from '../data/source.js';
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import type {Architecture} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';
import type {Chooser} from '../model/moe.js';
import {startWalk, type Walk} from '../model/walk.js';
import {openHead} from '../model/walk-head.js';
import {compileLayer, passLayers} from '../model/walk-layer.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, ModelError} from '../util/errors.js';
import {joinInts} from '../util/join.js';

/** A text as windows of equally many tokens; the first token of a window is not foretold. */
export interface TextWindows {
  readonly name: string;
  /** int32 [windows, tokens] */
  readonly tokens: Int32Array;
}

/** How much of a text is measured. */
export interface WindowOptions {
  readonly windowTokens: number;
  readonly maxTokens: number;
}

/**
 * Windows spread evenly over a text, whose documents follow each other as they are.
 *
 * @throws DataError if the text does not fill a window.
 */
export async function readWindows(
  {name, path, field}: Source,
  tokenizer: Tokenizer,
  {windowTokens, maxTokens}: WindowOptions,
): Promise<TextWindows> {
  const all: number[] = [];
  for await (const document of readDocuments({name, path, field}))
    for (const id of tokenizer.encode(document, {addSpecial: false})) all.push(id);
  const available = Math.floor(all.length / windowTokens);
  const count = Math.min(available, Math.floor(maxTokens / windowTokens));
  if (count === 0) {
    throw new DataError(`${pathText(path)} has ${all.length} tokens, a window of ${windowTokens} is asked for.`, {
      hint: 'Lower windowTokens, or give a longer text.',
    });
  }
  const tokens = new Int32Array(count * windowTokens);
  for (let i = 0; i < count; i++) {
    const begin = Math.floor((i * available) / count) * windowTokens;
    tokens.set(all.slice(begin, begin + windowTokens), i * windowTokens);
  }
  return {name, tokens};
}

/** Perplexity of a text: e to the mean loss of its foretold tokens. */
export interface Perplexity {
  readonly name: string;
  readonly perplexity: number;
  /** Tokens that were foretold. */
  readonly tokens: number;
}

/** How perplexity is measured. */
export interface PerplexityOptions {
  /** What chooses the experts of a mixture; default `'router'`, `'oracle'` for what a router that foresees them all would give. */
  readonly chooser?: Chooser;
}

/**
 * Perplexity of a model on some texts of windows of one length, computed in float32. The engine must have been started.
 *
 * @throws ModelError naming file and tensor if the model is damaged, or the text if its loss is not finite.
 */
export async function measurePerplexity(
  model: string,
  texts: readonly TextWindows[],
  windowLength: number,
  options: PerplexityOptions = {},
): Promise<Perplexity[]> {
  const folder = await openModelFolder(model);
  try {
    const architecture = architectureFromConfig(folder.config, folder.configFile);
    const tokens = joinInts(texts.map((text) => text.tokens));
    const losses = await lossesOf(folder, architecture, {tokens, sequenceLength: windowLength}, options);
    let end = 0;
    return texts.map(({name, tokens: {length}}) => {
      end += length;
      const sum = losses.subarray(end - length, end).reduce((total, loss) => total + loss, 0); // 0 where nothing is foretold
      const count = (length / windowLength) * (windowLength - 1);
      const perplexity = Math.exp(sum / count);
      if (Number.isFinite(perplexity)) return {name, perplexity, tokens: count};
      throw new ModelError(`${model}: the loss on ${name} is not a finite number.`, {
        hint: 'Look for weights that are not finite.',
      });
    });
  } finally {
    await folder.close();
  }
}

/** Loss of the next token at every position; 0 at the last one of a window. */
async function lossesOf(
  folder: ModelFolder,
  architecture: Architecture,
  text: {readonly tokens: Int32Array; readonly sequenceLength: number},
  options: PerplexityOptions,
): Promise<Float64Array> {
  const walk = await startWalk(folder, architecture, text);
  const forward = compileLayer(walk, options);
  try {
    await passLayers(walk, forward);
    return await headLosses(folder, walk, text);
  } finally {
    walk.dispose();
  }
}

async function headLosses(
  folder: ModelFolder,
  walk: Walk,
  text: {readonly tokens: Int32Array; readonly sequenceLength: number},
): Promise<Float64Array> {
  const head = await openHead(folder, walk, text);
  const losses = new Float64Array(text.tokens.length);
  const size = walk.batchSize * text.sequenceLength;
  for (const [b, batch] of walk.batches.entries()) losses.set(await head.losses(batch, b), b * size);
  return losses;
}
