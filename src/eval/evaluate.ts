// What a model can do: multiple choice and the perplexity of texts, by itself or against another model.
import {UsageError} from '../util/errors.js';
import {type PairedDifference, pairedBootstrap} from './bootstrap.js';
import {readChoiceItems} from './choice-items.js';
import {type Accuracy, accuracyOf} from './multiple-choice.js';
import type {RoutingStatistics} from './routing.js';
import {rowNames} from './row-names.js';
import type {LayerProgress} from './sequence-losses.js';
import {type TextScore, textScore, WHOLE, wholeScore} from './strided.js';
import {
  type Findings,
  isMixture,
  measureReading,
  openSubject,
  type Reading,
  readingOf,
  type Subject,
  type Task,
  type TextPlan,
} from './subject.js';

/** What is evaluated, and on what. */
export interface EvaluateOptions {
  /** Model folder, dense or a mixture, with its tokenizer. */
  readonly model: string;
  /** JSON Lines files of multiple choice. */
  readonly tasks?: readonly string[] | undefined;
  /** First records of each task that are shown before each item; default 0. */
  readonly fewShot?: number | undefined;
  /** Items of each task at most; default all. */
  readonly limit?: number | undefined;
  /** Texts whose perplexity is measured: .txt, .jsonl or .parquet. */
  readonly text?: readonly string[] | undefined;
  /** Field of the texts' records that parts them into rows. */
  readonly by?: string | undefined;
  /** Tokens that go through the model at once; default 1024, or as many as the model takes. */
  readonly window?: number | undefined;
  /** Tokens from one window to the next; default half a window. */
  readonly stride?: number | undefined;
  /** Tokens of each text at most; default all. */
  readonly tokens?: number | undefined;
  /** Whether the routers of mixtures are watched on the texts: loads, experts used together, experts of each text. */
  readonly routing?: boolean | undefined;
  /** Another model that is measured on the same, and compared. */
  readonly against?: string | undefined;
  /** Decides what the bootstrap draws; default 0. */
  readonly seed?: number | undefined;
}

/** How well a task was answered. */
export interface TaskScore {
  readonly name: string;
  readonly file: string;
  readonly items: number;
  readonly fewShot: number;
  /** Choices whose context lost its beginning, for the model takes no more. */
  readonly cut: number;
  readonly acc: Accuracy;
  /** By log-probability a character; null where contexts are chosen. */
  readonly accNorm: Accuracy | null;
}

/** What was measured of one model. */
export interface Scores {
  readonly model: string;
  readonly tasks: readonly TaskScore[];
  readonly texts: readonly TextScore[];
  /** All texts as one; null unless there are several. */
  readonly whole: TextScore | null;
  /** What routers did on the texts; null unless asked for, and where the model is dense. */
  readonly routing: RoutingStatistics | null;
}

/** How two models differ in one measure. */
export interface Difference extends Pick<PairedDifference, 'difference' | 'interval'> {
  /** Task or text. */
  readonly name: string;
  /** Shares of right answers, or nats a token. */
  readonly measure: 'acc' | 'acc_norm' | 'loss';
  /** Share of resamples in which the first model is the better one; equal ones count half. */
  readonly better: number;
}

/** What {@link evaluate} found. */
export interface Evaluation extends Scores {
  readonly window: number;
  readonly stride: number;
  /** The other model, and the first one less it. */
  readonly against: (Scores & {readonly differences: readonly Difference[]}) | null;
}

/** How far an evaluation is. */
export interface EvaluateProgress extends LayerProgress {
  readonly model: string;
}

/** Tokens of a window at most, unless asked for. */
const WINDOW = 1024;

/**
 * Measures a model on multiple choice, as lm-evaluation-harness does, and on texts, in float32 and layer by layer, so that
 * only some of it is in memory. The engine must have been started.
 *
 * With `against` another model is measured on the same, and the difference resampled over items and windows.
 * @throws UsageError if nothing is asked for, or what the model cannot take.
 * @throws DataError naming file and line if a record is no item, or text is too short or of another vocabulary.
 * @throws ModelError if a model is damaged, has no tokenizer, or gives losses that are not finite.
 */
export async function evaluate(
  options: EvaluateOptions,
  onProgress: (progress: EvaluateProgress) => void = () => undefined,
): Promise<Evaluation> {
  requireAsked(options);
  const {model, against, tasks: files = [], text = [], by, tokens} = options;
  const tasks: Task[] = [];
  const names = rowNames(files);
  for (const [i, file] of files.entries()) {
    tasks.push({name: names[i] as string, file, items: await readChoiceItems(file, options)});
  }
  const subjects: Subject[] = [];
  try {
    for (const name of against === undefined ? [model] : [model, against]) subjects.push(await openSubject(name));
    if (options.routing) requireMixture(subjects);
    const plan = {files: text, by, tokens, ...windowing(options, subjects)};
    return await evaluateSubjects(subjects, tasks, plan, options, onProgress);
  } finally {
    for (const {folder} of subjects) await folder.close();
  }
}

async function evaluateSubjects(
  subjects: readonly Subject[],
  tasks: readonly Task[],
  plan: TextPlan,
  {fewShot = 0, seed = 0, routing = false}: EvaluateOptions,
  onProgress: (progress: EvaluateProgress) => void,
): Promise<Evaluation> {
  const readings: Reading[] = [];
  for (const subject of subjects) readings.push(await readingOf(subject, tasks, plan));
  requireSameTexts(subjects, readings);
  const measured: (Findings & {scores: Scores})[] = [];
  for (const [i, subject] of subjects.entries()) {
    const {model} = subject;
    const reading = readings[i] as Reading;
    const onLayer = (progress: LayerProgress): void => onProgress({...progress, model});
    const findings = await measureReading(subject, reading, {routing, onLayer});
    measured.push({...findings, scores: scoresOf(model, reading, findings, fewShot)});
  }
  const [first, second] = measured as [(typeof measured)[number], (typeof measured)[number]?];
  const {window, stride} = plan;
  const against = second && {...second.scores, differences: differencesOf(readings[0] as Reading, first, second, seed)};
  return {...first.scores, window, stride, against: against ?? null};
}

function scoresOf(
  model: string,
  {tasks, texts}: Reading,
  {answers, losses, routing}: Findings,
  fewShot: number,
): Scores {
  const scores = texts.map(({text}, i) => textScore(text, losses[i] as Float64Array));
  return {
    model,
    tasks: tasks.map(({task: {name, file, items}, sequences}, i) => {
      const {acc, accNorm} = answers[i] as Findings['answers'][number];
      const cut = sequences.filter(({isCut}) => isCut).length;
      const norm = accNorm && accuracyOf(accNorm);
      return {name, file, items: items.length, fewShot, cut, acc: accuracyOf(acc), accNorm: norm};
    }),
    texts: scores,
    whole: scores.length > 1 ? wholeScore(scores) : null,
    routing,
  };
}

function differencesOf({tasks, texts}: Reading, first: Findings, second: Findings, seed: number): Difference[] {
  const ofTasks = tasks.flatMap(({task: {name}}, i) => {
    const [one, two] = [first.answers[i], second.answers[i]];
    const resample = (measure: Difference['measure'], a: readonly number[], b: readonly number[]): Difference => {
      const {above, ...rest} = pairedBootstrap(less(a, b), new Float64Array(a.length).fill(1), {seed});
      return {name, measure, ...rest, better: above};
    };
    if (!one || !two) return [];
    const norm = one.accNorm && two.accNorm ? [resample('acc_norm', one.accNorm, two.accNorm)] : [];
    return [resample('acc', one.acc, two.acc), ...norm];
  });
  return [...ofTasks, ...textDifferences(texts, first, second, seed)];
}

/** In nats a token: of each text, and of all together where there are several. */
function textDifferences(texts: Reading['texts'], first: Findings, second: Findings, seed: number): Difference[] {
  const rows = texts.map(({text: {name}, sequences}, i) => ({
    name,
    deltas: [...less(first.losses[i] as Float64Array, second.losses[i] as Float64Array)],
    counts: sequences.map(({tokens, from}) => tokens.length - from),
  }));
  const all = {name: WHOLE, deltas: rows.flatMap(({deltas}) => deltas), counts: rows.flatMap(({counts}) => counts)};
  return (rows.length > 1 ? [...rows, all] : rows).map(({name, deltas, counts}): Difference => {
    const {above, ...rest} = pairedBootstrap(deltas, counts, {seed});
    return {name, measure: 'loss', ...rest, better: 1 - above};
  });
}

function less(first: ArrayLike<number>, second: ArrayLike<number>): Float64Array {
  return Float64Array.from(first, (value, i) => value - (second[i] as number));
}

/** Refuses an evaluation of nothing, and options that would do nothing. @throws UsageError naming what is missing. */
export function requireAsked({tasks = [], text = [], ...options}: Omit<EvaluateOptions, 'model'>): void {
  if (tasks.length === 0 && text.length === 0) {
    throw new UsageError('What shall be measured?', {
      hint: 'Name files of multiple choice with --tasks, or texts with --text.',
    });
  }
  const idle = [
    ...(tasks.length > 0 ? [] : (['fewShot', 'limit'] as const)),
    ...(text.length > 0 ? [] : (['by', 'window', 'stride', 'tokens', 'routing'] as const)),
    ...(options.against === undefined ? (['seed'] as const) : []),
  ].find((name) => options[name] !== undefined && options[name] !== false);
  if (idle === undefined) return;
  const needed = idle === 'seed' ? '--against' : tasks.length > 0 ? '--text' : '--tasks';
  const flag = idle === 'fewShot' ? 'few-shot' : idle;
  throw new UsageError(`--${flag} does nothing without ${needed}.`, {hint: `Leave it out, or say ${needed}.`});
}

function windowing({window, stride}: EvaluateOptions, subjects: readonly Subject[]): {window: number; stride: number} {
  const most = Math.min(...subjects.map(({architecture}) => architecture.contextLength));
  const length = window ?? Math.min(WINDOW, most);
  const step = stride ?? Math.max(1, Math.floor(length / 2));
  if (length > most) {
    const {model} = subjects.find(({architecture}) => architecture.contextLength === most) as Subject;
    throw new UsageError(`A window of ${length} tokens is more than the ${most} that ${model} takes.`, {
      hint: `Lower --window to ${most} or less.`,
    });
  }
  if (step <= length) return {window: length, stride: step};
  throw new UsageError(`With a stride of ${step}, tokens between windows of ${length} would be left out.`, {
    hint: 'Lower --stride, or raise --window.',
  });
}

/** Dense models have no routers to be watched. */
function requireMixture(subjects: readonly Subject[]): void {
  if (subjects.some(({architecture}) => isMixture(architecture))) return;
  const [{model} = {model: ''}, second] = subjects;
  const asked =
    second === undefined ? `${model} is dense: it has` : `${model} and ${second.model} are dense: they have`;
  throw new UsageError(`${asked} no routers to watch.`, {hint: 'Leave out --routing, or name a mixture of experts.'});
}

/** Two models are compared window by window, so the windows must be the same. */
function requireSameTexts([first, second]: readonly Subject[], [one, two]: readonly Reading[]): void {
  if (!first || !second || !one || !two) return;
  const other = one.texts.find(({text}, i) => String(text.tokens) !== String(two.texts[i]?.text.tokens));
  if (!other) return;
  throw new UsageError(
    `The tokenizers of ${first.model} and ${second.model} cut ${other.text.name} into other tokens: its windows cannot be compared.`,
    {hint: 'Compare them on --tasks alone, or evaluate each by itself and compare bits a byte.'},
  );
}
