// A model that is evaluated: what it reads of tasks and texts, and what its losses say of them.
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import {type Architecture, moeLayouts} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';
import {requireKnown} from '../model/walk.js';
import {loadTokenizer, type Tokenizer} from '../tokenizer/tokenizer.js';
import type {ChoiceItem} from './choice-items.js';
import {type Answers, answersOf, type ChoiceSequence, choiceSequences} from './multiple-choice.js';
import type {SeeRoutes} from './routed-layers.js';
import {countTokens, emptyCounts, layerRouting, type RoutingStatistics} from './routing.js';
import {rowNames} from './row-names.js';
import {type LayerProgress, type Sequence, sequenceLosses} from './sequence-losses.js';
import {readStrided, type StridedOptions, type StridedText, WHOLE, windowsOf} from './strided.js';

/** A model and its tokenizer; its files are open. */
export interface Subject {
  readonly model: string;
  readonly folder: ModelFolder;
  readonly architecture: Architecture;
  readonly tokenizer: Tokenizer;
}

/** Items of one file. */
export interface Task {
  readonly name: string;
  readonly file: string;
  readonly items: readonly ChoiceItem[];
}

/** Texts to be foretold. */
export interface TextPlan extends Pick<StridedOptions, 'by' | 'tokens'> {
  readonly files: readonly string[];
  readonly window: number;
  readonly stride: number;
}

/** What a model is to read. */
export interface Reading {
  readonly tasks: readonly {readonly task: Task; readonly sequences: readonly ChoiceSequence[]}[];
  readonly texts: readonly {readonly text: StridedText; readonly sequences: readonly Sequence[]}[];
}

/** What was found, in the order of the reading. */
export interface Findings {
  readonly answers: readonly Answers[];
  /** Sums of the losses of each window, text by text. */
  readonly losses: readonly Float64Array[];
  /** Null where nobody asked for it, or the model is dense. */
  readonly routing: RoutingStatistics | null;
}

/** Opens a model. @throws ModelError if it is damaged, or its tokenizer is missing. */
export async function openSubject(model: string): Promise<Subject> {
  const tokenizer = await loadTokenizer(model);
  const folder = await openModelFolder(model);
  try {
    return {model, folder, tokenizer, architecture: architectureFromConfig(folder.config, folder.configFile)};
  } catch (error) {
    await folder.close();
    throw error;
  }
}

/**
 * What a model reads of tasks and texts.
 *
 * @throws DataError if a text is missing or too short, a choice too long, or a token outside the model's vocabulary.
 */
export async function readingOf(subject: Subject, tasks: readonly Task[], plan: TextPlan): Promise<Reading> {
  const {tokenizer, architecture, model} = subject;
  const texts: StridedText[] = [];
  for (const [i, name] of rowNames(plan.files, [WHOLE]).entries()) {
    texts.push(...(await readStrided(plan.files[i] as string, tokenizer, {...plan, name})));
  }
  const reading: Reading = {
    tasks: tasks.map((task) => ({
      task,
      sequences: choiceSequences(task.items, tokenizer, architecture.contextLength),
    })),
    texts: texts.map((text) => ({text, sequences: windowsOf(text, plan.window, plan.stride)})),
  };
  for (const sequence of sequencesOf(reading)) requireKnown(sequence, architecture, model);
  return reading;
}

function sequencesOf({tasks, texts}: Reading): Sequence[] {
  return [...tasks, ...texts].flatMap(({sequences}) => sequences);
}

/** How a reading is measured. */
export interface MeasureOptions {
  /** Whether the routers of a mixture are watched on the texts. */
  readonly routing: boolean;
  readonly onLayer: (progress: LayerProgress) => void;
}

/** Measures a model on its reading, all of it in the same walks through the layers. */
export async function measureReading(
  {folder, architecture}: Subject,
  reading: Reading,
  {routing, onLayer}: MeasureOptions,
): Promise<Findings> {
  const watch = routing && isMixture(architecture) ? watchRouting(architecture, reading) : null;
  const all = await sequenceLosses(folder, architecture, sequencesOf(reading), {onLayer, onRoutes: watch?.onRoutes});
  let end = 0;
  const take = ({length}: readonly Sequence[]): Float64Array => {
    end += length;
    return all.subarray(end - length, end);
  };
  return {
    answers: reading.tasks.map(({task, sequences}) => answersOf(task.items, take(sequences))),
    losses: reading.texts.map(({sequences}) => take(sequences)),
    routing: watch?.statistics() ?? null,
  };
}

/** Whether any layer has experts. */
export function isMixture(architecture: Architecture): boolean {
  return moeLayouts(architecture).length > 0;
}

/** Counts what routers do on the texts of a reading, each token once; its tasks do not count. */
function watchRouting(
  {ffn}: Architecture,
  {tasks, texts}: Reading,
): {readonly onRoutes: SeeRoutes; readonly statistics: () => RoutingStatistics} {
  const text_N = Int32Array.from([
    ...tasks.flatMap(({sequences}) => sequences.map(() => -1)),
    ...texts.flatMap(({sequences}, text) => sequences.map(() => text)),
  ]);
  const counts = ffn.map((layout, layer) => (layout.kind === 'moe' ? emptyCounts(layer, layout, texts.length) : null));
  const named = texts.map(({text: {name, tokens}}) => ({name, tokens: tokens.length - 1}));
  const tokens = named.reduce((sum, one) => sum + one.tokens, 0);
  return {
    onRoutes: (layer, expert_TK, owner_T) => {
      const count = counts[layer];
      if (count)
        countTokens(
          count,
          expert_TK,
          owner_T.map((owner) => text_N[owner] ?? -1),
        );
    },
    statistics: () => ({texts: named, layers: counts.flatMap((count) => (count ? [layerRouting(count, tokens)] : []))}),
  };
}
