// Multiple choice as lm-evaluation-harness computes it: lm_eval/api/task.py (process_results), lm_eval/api/model.py
// (_encode_pair, loglikelihood) and lm_eval/models/huggingface.py (_loglikelihood_tokens) of EleutherAI/lm-evaluation-harness.
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError} from '../util/errors.js';
import type {ChoiceItem, ChoicePair} from './choice-items.js';
import type {Sequence} from './sequence-losses.js';

/** What is read of a choice. */
export interface ChoiceSequence extends Sequence {
  /** Whether the beginning of its context is left out. */
  readonly isCut: boolean;
}

/** A share of right answers. */
export interface Accuracy {
  readonly value: number;
  /** Standard error of the mean; null for a single item. */
  readonly stderr: number | null;
}

/** Which items were answered rightly, 1 or 0 each. */
export interface Answers {
  /** By the sum of log-probabilities of a choice. */
  readonly acc: readonly number[];
  /** By that sum over the characters of the choice; null where contexts are chosen. */
  readonly accNorm: readonly number[] | null;
}

/**
 * The sequences of items, choice by choice: what the model reads and the tokens of the continuation at its end.
 *
 * Where context and continuation are more than the model takes, the context loses its beginning.
 * @throws DataError naming the record if a continuation has no tokens, or more than the model takes.
 */
export function choiceSequences(
  items: readonly ChoiceItem[],
  tokenizer: Tokenizer,
  contextLength: number,
): ChoiceSequence[] {
  return items.flatMap(({where, pairs}) =>
    pairs.map((pair, i) => {
      const {context, whole} = encodePair(pair, tokenizer, where);
      const count = whole.length - context;
      if (count >= 1 && count <= contextLength) {
        const tokens = whole.slice(-(contextLength + 1));
        return {tokens, from: tokens.length - count, isCut: tokens.length < whole.length};
      }
      throw new DataError(
        `${where}: choice ${i} is ${Math.max(0, count)} tokens; 1 to ${contextLength} can be foretold.`,
        {
          hint: 'Remove the record, or cut its choice.',
        },
      );
    }),
  );
}

/** Tokens of both as one text, and how many of them are the context's. */
function encodePair(
  {context, continuation}: ChoicePair,
  tokenizer: Tokenizer,
  where: string,
): {readonly whole: Int32Array; readonly context: number} {
  const head = context.trimEnd(); // spaces belong to the word behind them
  if (head !== '') {
    return {whole: tokenizer.encode(context + continuation), context: tokenizer.encode(head).length};
  }
  const first = tokenizer.bosId ?? tokenizer.eosId;
  if (first === null) {
    throw new DataError(
      `${where}: nothing stands before a choice, and the tokenizer has no token that begins a text.`,
      {
        hint: 'Give the record a context.',
      },
    );
  }
  const ids = tokenizer.encode(context + continuation, {addSpecial: false});
  return {whole: ids[0] === first ? ids : Int32Array.of(first, ...ids), context: 1};
}

/** Which items are answered rightly. @param losses sums of the losses of every choice, item by item. */
export function answersOf(items: readonly ChoiceItem[], losses: Float64Array): Answers {
  const acc: number[] = [];
  const accNorm: number[] = [];
  let begin = 0;
  for (const {pairs, gold, lengths} of items) {
    const scores = Array.from(losses.subarray(begin, begin + pairs.length), (loss) => -loss);
    begin += pairs.length;
    acc.push(Number(largest(scores) === gold));
    if (lengths) accNorm.push(Number(largest(scores.map((score, i) => score / (lengths[i] as number))) === gold));
  }
  return {acc, accNorm: accNorm.length === items.length ? accNorm : null};
}

/** The place of the largest value, the first of equal ones. */
function largest(values: readonly number[]): number {
  return values.indexOf(Math.max(...values));
}

/** The mean of zeros and ones, and its standard error: the sample standard deviation over √n. */
export function accuracyOf(answers: readonly number[]): Accuracy {
  const count = answers.length;
  const value = answers.reduce((sum, one) => sum + one, 0) / count;
  return {value, stderr: count > 1 ? Math.sqrt((value * (1 - value)) / (count - 1)) : null};
}
