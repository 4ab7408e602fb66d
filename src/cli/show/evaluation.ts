import type {Difference, Evaluation, Scores} from '../../eval/evaluate.js';
import type {Accuracy} from '../../eval/multiple-choice.js';
import {formatLoss} from '../../report/number.js';
import {type TableColumn, textTable} from '../../report/table.js';
import {formatPercent} from '../../util/percent.js';

const left = (title: string): TableColumn => ({title, align: 'left'});
const right = (title: string): TableColumn => ({title, align: 'right'});

/** What was measured, as tables: tasks, texts, and how two models differ. */
export function evaluationText(evaluation: Evaluation): string {
  const {against} = evaluation;
  const all: readonly Scores[] = against ? [evaluation, against] : [evaluation];
  const tables = [
    evaluation.tasks.length > 0 ? taskTable(all) : null,
    evaluation.texts.length > 0 ? textsTable(all, evaluation) : null,
    against ? differenceTable(evaluation.model, against.model, against.differences) : null,
  ];
  return tables.filter((table) => table !== null).join('\n\n');
}

function taskTable(all: readonly Scores[]): string {
  const columns = [left('task'), left('model'), right('items'), right('acc'), right('acc_norm')];
  const rows = rowsOf(all, ({tasks}) =>
    tasks.map(({name, items, fewShot, acc, accNorm}) => [
      fewShot > 0 ? `${name}, ${fewShot}-shot` : name,
      String(items),
      accuracyText(acc),
      accNorm ? accuracyText(accNorm) : '-',
    ]),
  );
  const cut = all.flatMap(({model, tasks}) =>
    tasks.flatMap((task) => (task.cut > 0 ? [cutText(model, task.name, task.cut)] : [])),
  );
  return [textTable(columns, rows), ...cut].join('\n');
}

function cutText(model: string, task: string, cut: number): string {
  return `${cut} choices of ${task} are longer than ${model} takes: their contexts lost their beginnings`;
}

function accuracyText({value, stderr}: Accuracy): string {
  return stderr === null ? value.toFixed(4) : `${value.toFixed(4)} ± ${stderr.toFixed(4)}`;
}

function textsTable(all: readonly Scores[], {window, stride}: Evaluation): string {
  const columns = [
    left('text'),
    left('model'),
    right('tokens'),
    right('bytes'),
    right('loss'),
    right('perplexity'),
    right('bits\na byte'),
    right('perplexity\nof bytes'),
  ];
  const rows = rowsOf(all, ({texts}) =>
    texts.map(({name, tokens, bytes, loss, perplexity, bitsPerByte, bytePerplexity}) => [
      name,
      String(tokens),
      String(bytes),
      formatLoss(loss),
      perplexity.toPrecision(4),
      bitsPerByte.toFixed(4),
      bytePerplexity.toFixed(4),
    ]),
  );
  return `${textTable(columns, rows)}\nwindows of ${window} tokens, each ${stride} behind the one before`;
}

/** The rows of all models, those of one task or text together, the name of the model behind that of the row. */
function rowsOf(all: readonly Scores[], cells: (scores: Scores) => readonly (readonly string[])[]): string[][] {
  const tables = all.map((scores) => cells(scores).map(([name = '', ...rest]) => [name, scores.model, ...rest]));
  const [first = []] = tables;
  return first.flatMap((_, i) => tables.map((rows) => rows[i] ?? []));
}

function differenceTable(first: string, second: string, differences: readonly Difference[]): string {
  const columns = [left('difference'), left('of'), right('mean'), right('95% interval'), right('first better')];
  const rows = differences.map(({name, measure, difference, interval, better}) => [
    name,
    measure,
    signed(difference),
    interval.map(signed).join(' to '),
    formatPercent(better),
  ]);
  return `${textTable(columns, rows)}\n${first} less ${second}; items or windows resampled in pairs, 10,000 times`;
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${value.toFixed(4)}`;
}
