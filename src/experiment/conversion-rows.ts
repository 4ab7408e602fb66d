// What was measured of conversions, a row each, kept by what it depends on.
import {createHash} from 'node:crypto';
import {appendFile, readFile, truncate} from 'node:fs/promises';
import type {Config} from '../config/schema.js';
import {NUMBERS} from '../downcycle/numbers.js';
import type {Profile} from '../downcycle/profile-file.js';
import type {EngineInfo} from '../engine/start.js';
import type {Perplexity, TextWindows} from '../eval/perplexity.js';
import {parseJson} from '../format/json.js';
import type {ParameterCount} from '../model/architecture.js';
import {DataError, systemCode} from '../util/errors.js';
import {packageVersion} from '../util/version.js';
import type {ConversionTask} from './conversion-tasks.js';

/** One measured conversion, or the dense model itself. */
export interface ConversionRow {
  /** What the row depends on; a row that is there is not measured again. */
  readonly key: string;
  /** Name of the arm; `dense` for the model itself. */
  readonly arm: string;
  readonly method: string;
  /** Share of the FFN neurons that are idle for a token; 0 for the dense model. */
  readonly sparsity: number;
  /** Null where nothing is drawn by lot. */
  readonly seed: number | null;
  readonly perplexities: readonly Perplexity[];
  /** With oracle routing; absent where that is not asked for, or nothing is chosen. */
  readonly oracle?: readonly Perplexity[];
  readonly parameters: ParameterCount;
  /** Of the conversion and the reading of its calibration text, without profile and measurement; null for the dense model. */
  readonly seconds: number | null;
  readonly peakBytes: number | null;
}

/** Rows in a file; each is measured once. */
export interface RowStore {
  row(key: string, measure: () => Promise<Omit<ConversionRow, 'key'>>): Promise<ConversionRow>;
}

/**
 * Rows by their keys, a line of JSON each; a torn last line is measured again.
 *
 * @throws DataError naming the line if one before the last is damaged.
 */
export async function openRows(path: string): Promise<RowStore> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  });
  const known = new Map<string, ConversionRow>();
  for (const [i, line] of text.split('\n').slice(0, -1).entries()) {
    const json = parseJson(line);
    if (json.kind === 'fault') throw damaged(`${path}:${i + 1}:${json.column}: ${json.reason}.`);
    const row = json.value as ConversionRow;
    known.set(row.key, row);
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole !== text) await truncate(path, Buffer.byteLength(whole));
  return {
    row: async (key, measure) => {
      const found = known.get(key);
      if (found) return found;
      const row = {key, ...(await measure())};
      await appendFile(path, `${JSON.stringify(row)}\n`);
      known.set(key, row);
      return row;
    },
  };
}

function damaged(message: string): DataError {
  return new DataError(message, {hint: 'Remove that line: its row is measured again.'});
}

/** What every row depends on: the model's weights, the calibration text and how it was watched, what is measured, engine and code. */
export function basisOf(
  {metadata: {model, tokenHash, options}}: Profile,
  windows: readonly TextWindows[],
  {windowTokens, oracle}: Config['conversions'],
  {engine, device}: EngineInfo,
): object {
  const texts = windows.map(({name, tokens}) => ({name, tokens: createHash('sha256').update(tokens).digest('hex')}));
  const extra = oracle ? {oracle} : {}; // rows without it are the same whether or not it could have been asked for
  return {
    fingerprint: model.fingerprint,
    tokenHash,
    options: {...options, predictors: null, gradients: null}, // measured if any arm asks for them
    engine,
    device,
    texts,
    windowTokens,
    ...extra,
    numbers: NUMBERS,
    version: packageVersion(),
  };
}

/** The key of a row. */
export function keyOf(basis: object, task: ConversionTask | 'dense'): string {
  return createHash('sha256').update(JSON.stringify({basis, task})).digest('hex').slice(0, 16);
}
