// Records of multiple choice: a question with answers to choose from, or contexts to choose from before one continuation.
import {readJsonlRecords} from '../data/jsonl.js';
import {asText, fault, fieldsOf, type SourceRecord} from '../data/record.js';
import {DataError, UsageError} from '../util/errors.js';

/** A continuation and what it stands behind. */
export interface ChoicePair {
  readonly context: string;
  readonly continuation: string;
}

/** One record. */
export interface ChoiceItem {
  /** `file:line` */
  readonly where: string;
  /** What is scored, choice by choice. */
  readonly pairs: readonly ChoicePair[];
  /** Which choice is right. */
  readonly gold: number;
  /** Characters of each choice; null where the contexts are what is chosen, for then all continuations are one. */
  readonly lengths: readonly number[] | null;
}

/** How much of a file is read. */
export interface ChoiceOptions {
  /** Records at the beginning that are shown before each item, with their answers, and are not measured; default 0. */
  readonly fewShot?: number | undefined;
  /** Items measured at most; default all. */
  readonly limit?: number | undefined;
}

const HINT = 'A record has `query`, `choices` and `gold`, or `context_options`, `continuation` and `gold`.';

/**
 * The items of a JSON Lines file of multiple choice.
 *
 * With `fewShot` the first records stand before every context, each with its right answer, parted by blank lines: what
 * lm-evaluation-harness calls the sampler `first_n`.
 * @throws DataError naming file and line if a record is no item, or the file holds none.
 * @throws UsageError if no record is asked for, or left to be measured.
 */
export async function readChoiceItems(path: string, {fewShot = 0, limit}: ChoiceOptions = {}): Promise<ChoiceItem[]> {
  if (limit !== undefined && !(limit >= 1)) throw new UsageError(`limit is ${limit}; at least one item is needed.`);
  const items: ChoiceItem[] = [];
  let shown = '';
  let records = 0;
  for await (const record of readJsonlRecords(path)) {
    if (limit !== undefined && items.length === limit) break;
    const item = itemOf(record);
    if (records++ < fewShot) shown += `${answered(item)}\n\n`;
    else items.push({...item, pairs: item.pairs.map((pair) => ({...pair, context: shown + pair.context}))});
  }
  if (records === 0) throw new DataError(`${path} holds no records.`, {hint: HINT});
  if (items.length > 0) return items;
  throw new UsageError(`${path} has ${records} records, and ${fewShot} are to be shown before the others.`, {
    hint: 'Lower --few-shot, or give a longer file.',
  });
}

function answered({pairs, gold}: ChoiceItem): string {
  const {context, continuation} = pairs[gold] as ChoicePair;
  return context + continuation;
}

function itemOf(record: SourceRecord): ChoiceItem {
  const {where} = record;
  const fields = fieldsOf(record);
  const isSchema = 'context_options' in fields && !('choices' in fields);
  const choices = textsOf(where, isSchema ? 'context_options' : 'choices', fields);
  const gold = goldOf(where, fields, choices.length);
  if (isSchema) {
    const continuation = asText(where, 'continuation', fields, HINT);
    return {where, gold, lengths: null, pairs: choices.map((context) => pairOf(context, continuation))};
  }
  const query = asText(where, 'query', fields, HINT);
  const lengths = choices.map((choice) => [...choice].length); // code points, as Python counts
  return {where, gold, lengths, pairs: choices.map((choice) => pairOf(query, choice))};
}

/** A space always, as `target_delimiter` of lm-evaluation-harness: also before choices that begin with one (HellaSwag). */
function pairOf(context: string, choice: string): ChoicePair {
  return {context, continuation: ` ${choice}`};
}

function textsOf(where: string, name: string, fields: Readonly<Record<string, unknown>>): readonly string[] {
  const value = fields[name];
  const isList = Array.isArray(value) && value.length > 0;
  if (isList && value.every((text): text is string => typeof text === 'string' && text !== '')) return value;
  throw new DataError(`${where}: ${fault(name, value, 'is no list of texts', fields)}`, {hint: HINT});
}

function goldOf(where: string, fields: Readonly<Record<string, unknown>>, count: number): number {
  const {gold} = fields;
  if (typeof gold === 'number' && Number.isInteger(gold) && gold >= 0 && gold < count) return gold;
  const found = gold === undefined ? '' : ` (${JSON.stringify(gold)})`;
  throw new DataError(
    `${where}: ${fault('gold', gold, `is no place in ${count} choices, 0 to ${count - 1}${found}`, fields)}`,
    {hint: HINT},
  );
}
