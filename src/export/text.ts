// The text that an export is measured on.
import {basename} from 'node:path';
import {readWindows} from '../eval/perplexity.js';
import type {Architecture} from '../model/architecture.js';
import type {WalkText} from '../model/walk.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {createRng} from '../util/rng.js';

/** A text as tokens, and what it is in words. */
export interface ExportText extends WalkText {
  readonly name: string;
}

const WINDOW = 128;
const TOKENS = 512;

/**
 * Windows spread evenly over a file; tokens drawn at random if there is none.
 *
 * @throws DataError if the file does not fill a window; ModelError if the model has no tokenizer to read it with.
 */
export async function exportText(
  model: string,
  {vocab, contextLength}: Architecture,
  file: string | undefined,
): Promise<ExportText> {
  const sequenceLength = Math.min(WINDOW, contextLength);
  if (file === undefined) {
    const rng = createRng(1, 'export');
    const tokens = Int32Array.from({length: Math.floor(TOKENS / sequenceLength) * sequenceLength}, () =>
      rng.int(vocab),
    );
    return {name: 'tokens drawn at random', tokens, sequenceLength};
  }
  const tokenizer = await loadTokenizer(model);
  const windows = {windowTokens: sequenceLength, maxTokens: TOKENS};
  const {tokens} = await readWindows({name: basename(file), path: file}, tokenizer, windows);
  return {name: basename(file), tokens, sequenceLength};
}
