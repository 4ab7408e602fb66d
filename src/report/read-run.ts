import {readFile, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {readRunLog} from '../format/run-log.js';
import type {EvalRecord, RunLogRecord, StepRecord} from '../format/run-record.js';
import {DataError, systemCode} from '../util/errors.js';
import {type ReportRun, type RunRecords, reportRun} from './runs.js';

/**
 * Reads a run folder: its `log.jsonl`, and `config.yaml` if it is there.
 *
 * @throws DataError if there is no log, it is damaged, or it has no head or no step yet.
 */
export async function readReportRun(folder: string): Promise<ReportRun> {
  const log = join(folder, 'log.jsonl');
  if (!(await stat(log).catch(() => null))) {
    throw new DataError(`${folder} is not a run folder: it has no log.jsonl.`, {
      hint: 'Give folders that `downcycle train` or `downcycle compare` wrote.',
    });
  }
  return reportRun(folder, runRecords(await readRunLog(log), log), await readIfThere(join(folder, 'config.yaml')));
}

/** Sorts the records of a log by kind. A resumed run goes on: only the last record of a step, and the last end, count. */
export function runRecords(records: readonly RunLogRecord[], log: string): RunRecords {
  const run = records.find((record) => record.kind === 'run');
  if (!run) throw new DataError(`${log}: no run record; the head of the log is missing.`);
  const steps = records.filter((record): record is StepRecord => record.kind === 'step');
  if (steps.length === 0) {
    throw new DataError(`${log}: no step records, so there is no curve to draw.`, {hint: 'Train the run first.'});
  }
  const evals = records.filter((record): record is EvalRecord => record.kind === 'eval');
  const last = records.findLast(
    (record) => record.kind === 'end' || record.kind === 'step' || record.kind === 'resume',
  );
  return {head: run, steps, evals, end: last?.kind === 'end' ? last.reason : null};
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
}
