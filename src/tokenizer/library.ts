import {TextDecoder} from 'node:util';
import {Tokenizer} from '@huggingface/tokenizers';

/** What we use of the library. Its own type files use imports without suffix, which NodeNext does not resolve. */
export interface Library {
  readonly model: {readonly vocab: readonly string[]};
  readonly pre_tokenizer: PreTokenizer | null;
  readonly decoder: Decoder | null;
  encode(text: string, options: {add_special_tokens: boolean}): {ids: number[]};
  decode(ids: number[], options: {skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean}): string;
  token_to_id(token: string): number | undefined;
}

interface PreTokenizer {
  readonly config?: {readonly type: string; readonly individual_digits?: boolean};
  readonly tokenizers?: readonly (PreTokenizer | null)[];
  pattern?: RegExp;
}

interface Decoder {
  readonly config: {readonly type: string};
  readonly decoders?: readonly (Decoder | null)[];
  text_decoder?: TextDecoder;
}

/**
 * The GPT-2 pattern with Unicode's White_Space.
 *
 * JavaScript's `\s` lacks U+0085 and has U+FEFF, so the library's own pattern gives other ids than Rust does.
 */
const GPT2_PATTERN =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** Rust calls every character of the category N numeric; JavaScript's `\d` is ASCII only. */
const EACH_NUMBER = /[^\p{N}]+|\p{N}/gu;
const NUMBER_RUNS = /[^\p{N}]+|\p{N}+/gu;

/** Builds the library's tokenizer with the character classes of the Rust implementation; throws what it throws. */
export function createLibrary(definition: object, settings: object): Library {
  // The one typed seam to the untyped package.
  // eslint-disable-next-line @typescript-eslint/no-unsafe-assignment
  const Constructor: new (definition: object, settings: object) => Library = Tokenizer;
  const library = new Constructor(definition, settings);
  useUnicodeClasses(library.pre_tokenizer);
  keepByteOrderMarks(library.decoder);
  return library;
}

function useUnicodeClasses(preTokenizer: PreTokenizer | null): void {
  if (!preTokenizer) return;
  preTokenizer.tokenizers?.forEach(useUnicodeClasses);
  if (preTokenizer.config?.type === 'ByteLevel') preTokenizer.pattern = GPT2_PATTERN;
  if (preTokenizer.config?.type === 'Digits') {
    preTokenizer.pattern = preTokenizer.config.individual_digits ? EACH_NUMBER : NUMBER_RUNS;
  }
}

/** A plain TextDecoder swallows a leading U+FEFF; text that was encoded must come back whole. */
function keepByteOrderMarks(decoder: Decoder | null): void {
  if (!decoder) return;
  decoder.decoders?.forEach(keepByteOrderMarks);
  if (decoder.config.type === 'ByteFallback') decoder.text_decoder = new TextDecoder('utf-8', {ignoreBOM: true});
}
