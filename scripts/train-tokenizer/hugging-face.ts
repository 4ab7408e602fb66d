import {type Merge, symbolBytes} from './bpe.js';

/** Ends a document, opens one, and fills up rows: the only special token, id 0. */
const END_OF_TEXT = '<|endoftext|>';

const SPECIAL = {
  content: END_OF_TEXT,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
};

/** The content of tokenizer.json: byte-level BPE as transformers, llama.cpp and @huggingface/tokenizers read it. */
export function tokenizerJson(merges: readonly Merge[]) {
  const names = symbolNames(merges);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [{id: 0, ...SPECIAL}],
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {type: 'Digits', individual_digits: true},
        {type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true},
      ],
    },
    post_processor: null,
    decoder: {type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true},
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries([END_OF_TEXT, ...names].map((name, id) => [name, id])),
      merges: merges.map(([left, right]) => `${names[left]} ${names[right]}`),
    },
  };
}

/** The content of tokenizer_config.json. */
export function tokenizerConfig() {
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    added_tokens_decoder: {0: SPECIAL},
    bos_token: END_OF_TEXT,
    eos_token: END_OF_TEXT,
    pad_token: END_OF_TEXT,
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
  };
}

/** How byte-level vocabularies spell each symbol: one printable character a byte. */
function symbolNames(merges: readonly Merge[]): string[] {
  const letters = byteLetters();
  return symbolBytes(merges).map((bytes) => bytes.map((byte) => letters[byte]).join(''));
}

/** GPT-2's letter for each byte: itself where Latin-1 prints it, else the next of U+0100, U+0101 ... */
function byteLetters(): string[] {
  let spare = 0x100;
  return Array.from({length: 256}, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : spare++));
}

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
}
