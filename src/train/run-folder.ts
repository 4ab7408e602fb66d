import {readdir, readFile, rm, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {readRunLog, truncateAfterStep} from '../format/run-log.js';
import type {RunLogRecord} from '../format/run-record.js';
import {writeFileAtomic} from '../util/atomic.js';
import {EnvironmentError, UsageError} from '../util/errors.js';
import {latestCheckpoint, latestLight, removeAfter} from './checkpoint.js';
import {configDifferences} from './config-difference.js';
import {type Checkpoint, logPath, type TrainResult, type TrainRun} from './session.js';

/** Its mark: written before anything else. */
const CONFIG = 'config.yaml';
/** What a killed process leaves of a file or folder it had not finished. */
const UNFINISHED = /^(\.step-\d+|config\.yaml|best\.json|log\.jsonl)\.part-\d+$/;

/**
 * Looks whether a run may begin in its folder; changes nothing. Returns the result of a run that is complete already.
 *
 * @throws EnvironmentError if something is there and neither resume nor overwrite was said, or it is no run folder;
 * UsageError if the run to be resumed has another config.
 */
export async function checkFolder({out, mode, config, allowsChange}: TrainRun): Promise<TrainResult | null> {
  if (!(await exists(out))) return null;
  if (mode === 'new') {
    throw new EnvironmentError(`${out} already exists; downcycle never overwrites.`, {
      hint: 'Say --resume to go on with it, --overwrite to start again, or choose another name.',
    });
  }
  await refuseForeign(out);
  if (mode === 'overwrite' || !(await exists(logPath(out)))) return null;
  const records = await readRunLog(logPath(out));
  if (allowsChange) return null;
  const hashes = records.flatMap((record) => ('configHash' in record ? (record.configHash ?? []) : []));
  const newest = hashes.at(-1);
  if (newest !== undefined) await refuseOtherConfig(out, newest, config);
  return completed(out, records.at(-1));
}

/**
 * The checkpoint a run goes on from, or null to start at the beginning.
 *
 * @throws UsageError if it has another config, or there are only checkpoints that nothing can go on from.
 */
export async function findCheckpoint({out, mode, config, allowsChange}: TrainRun): Promise<Checkpoint | null> {
  if (mode !== 'resume' || !(await exists(out))) return null;
  const checkpoint = await latestCheckpoint(out);
  if (checkpoint && !allowsChange) await refuseOtherConfig(out, checkpoint.trainer.configHash, config);
  const light = checkpoint ? null : await latestLight(out);
  if (light !== null) {
    throw new UsageError(
      `${out} has only light checkpoints, without what the optimizer keeps; nothing goes on from them.`,
      {
        hint: `Say --overwrite to start again, or take the weights of ${light} as the model of another run.`,
      },
    );
  }
  return checkpoint;
}

/** Makes the run folder ready: new, emptied, or with its log taken back to the checkpoint and remains swept up. */
export async function openFolder({out, mode, config}: TrainRun, checkpoint: Checkpoint | null): Promise<void> {
  if (checkpoint) {
    const remains = (await readdir(out)).filter((name) => UNFINISHED.test(name));
    for (const name of remains) await rm(join(out, name), {recursive: true});
    await removeAfter(out, checkpoint.trainer.step);
    await truncateAfterStep(logPath(out), checkpoint.trainer.step);
    if (checkpoint.trainer.configHash !== config.hash) await writeFileAtomic(join(out, CONFIG), config.yaml);
    return;
  }
  if (mode !== 'new') await removeRun(out); // asked for, or nothing in it to go on from
  await writeFileAtomic(join(out, CONFIG), config.yaml);
}

/** The config goes last: a folder that still has it is a run's, and can be overwritten by the next who tries. */
async function removeRun(out: string): Promise<void> {
  const names = await readdir(out).catch(() => []);
  for (const name of names.filter((one) => one !== CONFIG)) await rm(join(out, name), {recursive: true, force: true});
  await rm(out, {recursive: true, force: true});
}

/** What changed of a run since it began, in words: keys of its config; to be asked before its folder is opened. */
export async function changesOf({out, config}: TrainRun, checkpoint: Checkpoint): Promise<string[]> {
  if (checkpoint.trainer.configHash === config.hash) return [];
  const keys = configDifferences(await readFile(join(out, CONFIG), 'utf8').catch(() => ''), config.yaml);
  return keys.length > 0 ? keys : ['config'];
}

/** A folder that is emptied must be a run's: a mistyped name must not cost anyone a model. */
async function refuseForeign(out: string): Promise<void> {
  const names = await readdir(out).catch(() => null);
  if (names && (names.includes(CONFIG) || names.every((name) => UNFINISHED.test(name)))) return;
  throw new EnvironmentError(`${out} exists and is no run folder: it has no ${CONFIG}.`, {
    hint: 'Choose another name, or remove it yourself.',
  });
}

async function refuseOtherConfig(out: string, found: string, wanted: TrainRun['config']): Promise<void> {
  if (found === wanted.hash) return;
  const path = join(out, CONFIG);
  const keys = configDifferences(await readFile(path, 'utf8').catch(() => ''), wanted.yaml);
  const which = keys.length > 0 ? `: ${keys.join(', ')}` : '';
  throw new UsageError(`${out} holds a run of another config${which}.`, {
    hint: `Its config is ${path}. Say --overwrite to start again, --allow-change (train, recover) to go on with the new one, or choose another name or folder.`,
  });
}

function completed(out: string, last: RunLogRecord | undefined): TrainResult | null {
  if (last?.kind !== 'end' || (last.reason !== 'completed' && last.reason !== 'early')) return null;
  return {out, step: last.step, tokens: last.tokens, reason: last.reason, signal: null};
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}
