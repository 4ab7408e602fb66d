import type {DiveConversion} from '../../downcycle/dive.js';
import {type TableColumn, textTable} from '../../report/table.js';

type Pruned = DiveConversion['provenance'];

/** Which tasks each expert was pruned on, and how they were found to go together. */
export function clusterText({affinity, calibration: {tasks}}: Pruned): string {
  const rows = affinity.clusters.flatMap((cluster, expert) =>
    cluster.map((task) => [
      String(expert),
      tasks[task] ?? '',
      (affinity.perplexity[task]?.[task] ?? Number.NaN).toFixed(2),
      elsewhere(affinity.perplexity[task] ?? [], task),
      nearest(affinity.correlation[task] ?? [], task, tasks),
    ]),
  );
  const columns = [right('expert'), left('task'), right('own'), right('elsewhere'), left('nearest')];
  return `${textTable(columns, rows)}

own        perplexity of the model pruned on the task, on its text
elsewhere  the same on the text of the other tasks, geometric mean
nearest    task whose pruned model does most alike, and the correlation`;
}

/** How many neurons of each layer were left out, and how many are in one, several or all of the experts. */
export function keptText(kept: readonly (readonly number[])[]): string {
  const rows = kept.map((counts, layer) => [layer, ...overlap(counts)].map(String));
  const columns = ['layer', 'left out', 'in one', 'in several', 'in all'].map(right);
  return `${textTable(columns, rows)}

neurons of the dense FFN by how many of the experts keep them`;
}

/** Left out, in one, in several and in all experts; where one is all there are, it counts as all. */
function overlap(counts: readonly number[]): number[] {
  const E = counts.length - 1;
  const several = counts.slice(2, E).reduce((sum, count) => sum + count, 0);
  return [counts[0] ?? 0, E > 1 ? (counts[1] ?? 0) : 0, several, counts[E] ?? 0];
}

function elsewhere(row: readonly number[], task: number): string {
  const others = row.filter((_, other) => other !== task);
  if (others.length === 0) return '-';
  return Math.exp(others.reduce((sum, value) => sum + Math.log(value), 0) / others.length).toFixed(2);
}

function nearest(row: readonly number[], task: number, tasks: readonly string[]): string {
  const [found] = [...row.keys()].filter((other) => other !== task).sort((a, b) => (row[b] ?? 0) - (row[a] ?? 0));
  return found === undefined ? '-' : `${tasks[found] ?? ''} ${(row[found] ?? 0).toFixed(2)}`;
}

function left(title: string): TableColumn {
  return {title, align: 'left'};
}

function right(title: string): TableColumn {
  return {title, align: 'right'};
}
