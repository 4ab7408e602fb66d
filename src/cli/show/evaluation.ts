import type {Evaluation} from '../../eval/evaluate.js';
import {evaluationTables} from '../../experiment/evaluation-tables.js';
import {textTable} from '../../report/table.js';

/** What was measured, as tables for a terminal. */
export function evaluationText(evaluation: Evaluation): string {
  return evaluationTables(evaluation)
    .map(({columns, rows, notes}) => [textTable(columns, rows), ...notes].join('\n'))
    .join('\n\n');
}
