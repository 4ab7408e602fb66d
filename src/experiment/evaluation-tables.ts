// What an evaluation found, as tables: tasks, texts, how two models differ, and what routers did.
import type {Difference, Evaluation, Scores} from '../eval/evaluate.js';
import type {Accuracy} from '../eval/multiple-choice.js';
import type {RoutingStatistics} from '../eval/routing.js';
import type {TextScore} from '../eval/strided.js';
import {formatLoss} from '../report/number.js';
import type {TableColumn} from '../report/table.js';
import {formatPercent} from '../util/percent.js';
import {routingTables} from './routing-tables.js';

/** A table for a terminal or a page. */
export interface EvaluationTable {
  readonly title: string;
  readonly columns: readonly TableColumn[];
  readonly rows: readonly (readonly string[])[];
  /** What must be known of it, a line each. */
  readonly notes: readonly string[];
}

/** What routers of a model did. */
export interface RoutedModel {
  readonly model: string;
  readonly routing: RoutingStatistics;
}

/** A column of words. */
export const left = (title: string): TableColumn => ({title, align: 'left'});
/** A column of numbers. */
export const right = (title: string): TableColumn => ({title, align: 'right'});

/** All tables that have rows. */
export function evaluationTables(evaluation: Evaluation): EvaluationTable[] {
  const {against} = evaluation;
  const all = modelsOf(evaluation);
  return [
    ...(evaluation.tasks.length > 0 ? [taskTable(all)] : []),
    ...(evaluation.texts.length > 0 ? [textsTable(all, evaluation)] : []),
    ...(against ? [differenceTable(evaluation.model, against.model, against.differences)] : []),
    ...routedModels(evaluation).flatMap(routingTables),
  ];
}

/** The models whose routers were watched. */
export function routedModels(evaluation: Evaluation): RoutedModel[] {
  return modelsOf(evaluation).flatMap(({model, routing}) => (routing ? [{model, routing}] : []));
}

function modelsOf(evaluation: Evaluation): readonly Scores[] {
  return evaluation.against ? [evaluation, evaluation.against] : [evaluation];
}

function taskTable(all: readonly Scores[]): EvaluationTable {
  return {
    title: 'Multiple choice',
    columns: [left('task'), left('model'), right('items'), right('acc'), right('acc_norm')],
    rows: rowsOf(all, ({tasks}) =>
      tasks.map(({name, items, fewShot, acc, accNorm}) => [
        fewShot > 0 ? `${name}, ${fewShot}-shot` : name,
        String(items),
        accuracyText(acc),
        accNorm ? accuracyText(accNorm) : '-',
      ]),
    ),
    notes: all.flatMap(({model, tasks}) =>
      tasks.flatMap((task) => (task.cut > 0 ? [cutText(model, task.name, task.cut)] : [])),
    ),
  };
}

function cutText(model: string, task: string, cut: number): string {
  return `${cut} choices of ${task} are longer than ${model} takes: their contexts lost their beginnings`;
}

function accuracyText({value, stderr}: Accuracy): string {
  return stderr === null ? value.toFixed(4) : `${value.toFixed(4)} ± ${stderr.toFixed(4)}`;
}

function textsTable(all: readonly Scores[], {window, stride}: Evaluation): EvaluationTable {
  return {
    title: 'Texts',
    columns: [
      left('text'),
      left('model'),
      right('tokens'),
      right('bytes'),
      right('loss'),
      right('perplexity'),
      right('bits\na byte'),
      right('perplexity\nof bytes'),
    ],
    rows: rowsOf(all, ({texts, whole}) => [...texts, ...(whole ? [whole] : [])].map(textCells)),
    notes: [`windows of ${window} tokens, each ${stride} behind the one before`],
  };
}

function textCells(score: TextScore): string[] {
  const {name, tokens, bytes, loss, perplexity, bitsPerByte, bytePerplexity} = score;
  return [
    name,
    String(tokens),
    String(bytes),
    formatLoss(loss),
    perplexity.toPrecision(4),
    bitsPerByte.toFixed(4),
    bytePerplexity.toFixed(4),
  ];
}

/** The rows of all models, those of one task or text together, the name of the model behind that of the row. */
function rowsOf(all: readonly Scores[], cells: (scores: Scores) => readonly (readonly string[])[]): string[][] {
  const tables = all.map((scores) => cells(scores).map(([name = '', ...rest]) => [name, scores.model, ...rest]));
  const [first = []] = tables;
  return first.flatMap((_, i) => tables.map((rows) => rows[i] ?? []));
}

function differenceTable(first: string, second: string, differences: readonly Difference[]): EvaluationTable {
  return {
    title: 'Differences',
    columns: [left('difference'), left('of'), right('mean'), right('95% interval'), right('first better')],
    rows: differences.map(({name, measure, difference, interval, better}) => [
      name,
      measure,
      signed(difference),
      interval.map(signed).join(' to '),
      formatPercent(better),
    ]),
    notes: [`${first} less ${second}; items or windows resampled in pairs, 10,000 times`],
  };
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${value.toFixed(4)}`;
}
