import {readdir, readFile, rm, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {readRunLog, truncateAfterStep} from '../format/run-log.js';
import type {RunLogRecord} from '../format/run-record.js';
import {writeFileAtomic} from '../util/atomic.js';
import {EnvironmentError, ModelError, UsageError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {latestCheckpoint, latestLight, removeAfter, unmarkedCheckpoints} from './checkpoint.js';
import {configDifferences} from './config-difference.js';
import {type Checkpoint, logPath, type TrainResult, type TrainRun} from './session.js';

/** Written before anything else. */
const CONFIG = 'config.yaml';
/** What a run makes; nothing else is ever removed. */
const OWN = /^(config\.yaml|log\.jsonl|best\.json|report|step-\d{6,})$/;
/** By which a run's folder is known. */
const MARK = /^(log\.jsonl|step-\d{6,})$/;
/** What a killed process leaves of a file or folder it had not finished. */
const UNFINISHED = /^(\.step-\d+|config\.yaml|best\.json|log\.jsonl)\.part-\d+$/;

/**
 * Looks whether a run may begin in its folder; changes nothing. Returns the result of a run that is complete already.
 *
 * @throws EnvironmentError if something is there and neither resume nor overwrite was said, it is no run folder, or it
 * would be emptied and holds what no run makes; UsageError if the run to be resumed has another config; ModelError if
 * there is nothing to go on from but damaged checkpoints, or they have no log.
 */
export async function checkFolder(run: TrainRun): Promise<TrainResult | null> {
  const {out, mode, config, allowsChange} = run;
  if (!(await exists(out))) return null;
  if (mode === 'new') {
    throw new EnvironmentError(`${out} already exists; downcycle never overwrites.`, {
      hint: 'Say --resume to go on with it, --overwrite to start again, or choose another name.',
    });
  }
  await refuseNoRun(out, config);
  if (mode === 'resume' && (await exists(logPath(out)))) {
    const records = await readRunLog(logPath(out));
    const newest = newestHash(records);
    if (newest !== undefined && !allowsChange) await refuseOtherConfig(out, newest, config);
    const done = allowsChange ? null : completed(out, records.at(-1));
    if (done) return done;
  }
  if (mode === 'overwrite') await refuseForeign(out);
  else if (!(await latestCheckpoint(out))) await refuseNewStart(out);
  else if (!(await exists(logPath(out)))) refuseWithoutLog(out);
  return null;
}

/**
 * The checkpoint a run goes on from, or null to start at the beginning.
 *
 * @throws UsageError if it has another config, has made more steps than are asked for, or there are only checkpoints that
 * nothing can go on from; ModelError if its log is empty.
 */
export async function findCheckpoint({out, mode, config, train, allowsChange}: TrainRun): Promise<Checkpoint | null> {
  if (mode !== 'resume' || !(await exists(out))) return null;
  const checkpoint = await latestCheckpoint(out);
  if (checkpoint && allowsChange) refuseFewerSteps(out, checkpoint.trainer.step, train.steps);
  if (checkpoint && !allowsChange) await refuseOtherConfig(out, await lastHash(out, checkpoint), config);
  if (checkpoint && (await readRunLog(logPath(out))).length === 0) refuseWithoutLog(out);
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

/** It would train nothing, and call itself complete. */
function refuseFewerSteps(out: string, made: number, asked: number): void {
  if (made <= asked) return;
  throw new UsageError(`${out} has made ${made} steps, and train.steps asks for ${asked}.`, {
    hint: 'Ask for more steps, or take a checkpoint of it as the model of another run.',
  });
}

/** What a person who resumes should know of a folder that has nothing to go on from; null if there is nothing to say. */
export async function beginsAgain({out, mode}: TrainRun, checkpoint: Checkpoint | null): Promise<string | null> {
  if (mode !== 'resume' || checkpoint || !(await exists(logPath(out)))) return null;
  return `no whole checkpoint in ${out}: the run begins again`;
}

/** Makes the run folder ready: new, emptied, or with its log taken back to the checkpoint and remains swept up. */
export async function openFolder({out, mode, config}: TrainRun, checkpoint: Checkpoint | null): Promise<void> {
  if (checkpoint) {
    const remains = (await readdir(out)).filter((name) => UNFINISHED.test(name));
    for (const name of remains) await rm(join(out, name), {recursive: true});
    await removeAfter(out, checkpoint.trainer.step);
    await truncateAfterStep(logPath(out), checkpoint.trainer.step);
    const written = await readFile(join(out, CONFIG), 'utf8').catch(() => null);
    if (written !== config.yaml) await writeFileAtomic(join(out, CONFIG), config.yaml);
    return;
  }
  await refuseForeign(out);
  await writeFileAtomic(join(out, CONFIG), config.yaml);
  if (mode !== 'new') await removeRun(out); // asked for, or nothing in it to go on from
}

/** Removes what a run made but its config; its log first, which might say that it is complete. Killed, it can be repeated. */
async function removeRun(out: string): Promise<void> {
  await rm(logPath(out), {recursive: true, force: true});
  const names = (await namesIn(out)).filter((name) => name !== CONFIG);
  for (const name of names) await rm(join(out, name), {recursive: true, force: true});
}

/** What changed of a run since it last began or went on, in words: keys of its config; to be asked before its folder is opened. */
export async function changesOf({out, config}: TrainRun, checkpoint: Checkpoint): Promise<string[]> {
  if ((await lastHash(out, checkpoint)) === config.hash) return [];
  const keys = await differencesOf(out, config);
  return keys.length > 0 ? keys : ['config'];
}

/** From the config that lies in the folder, which someone may have edited; where that tells nothing, from the checkpoint's. */
async function differencesOf(out: string, config: TrainRun['config']): Promise<string[]> {
  const keys = configDifferences(await readFile(join(out, CONFIG), 'utf8').catch(() => ''), config.yaml);
  if (keys.length > 0) return keys;
  return configDifferences((await latestCheckpoint(out))?.trainer.config ?? '', config.yaml);
}

/** Only a run's folder is touched: it has a log or a checkpoint, or a run stopped before it had and its config is the same. */
async function refuseNoRun(out: string, config: TrainRun['config']): Promise<void> {
  const names = await namesIn(out);
  if (names.includes(CONFIG)) {
    if (names.some((name) => MARK.test(name))) return;
    if ((await readFile(join(out, CONFIG), 'utf8')) === config.yaml) return;
  } else if ((await stat(out)).isDirectory() && names.every((name) => UNFINISHED.test(name))) return;
  const reason = names.includes(CONFIG) ? `its ${CONFIG} has no log beside it` : `it has no ${CONFIG}`;
  throw new EnvironmentError(`${out} exists and is no run folder: ${reason}.`, {
    hint: 'Choose another name, or remove it yourself.',
  });
}

/** A folder that is emptied may hold nothing but a run: a mistyped name must not cost anyone a file. */
async function refuseForeign(out: string): Promise<void> {
  const foreign = (await namesIn(out)).filter((name) => !OWN.test(name) && !UNFINISHED.test(name));
  if (foreign.length === 0) return;
  throw new EnvironmentError(`${out} would be emptied, and holds what no run makes: ${foreign.sort().join(', ')}.`, {
    hint: 'Move that elsewhere, or choose another name.',
  });
}

/** Nothing to go on from: what is there must be a run's, and no checkpoint that someone could mend. */
async function refuseNewStart(out: string): Promise<void> {
  await refuseForeign(out);
  const damaged = await unmarkedCheckpoints(out);
  if (damaged.length === 0) return;
  throw new ModelError(`${out} has no whole checkpoint: there is no trainer.json in ${damaged.join(', ')}.`, {
    hint: 'Put back what was removed from one of them, or say --overwrite to start again.',
  });
}

/** Whoever removed the log, an overwrite that was killed or a person: what came before a checkpoint is not known. */
function refuseWithoutLog(out: string): never {
  throw new ModelError(`${out} has checkpoints, and no log.jsonl that says how they came about.`, {
    hint: 'Put the log back, or say --overwrite to start again.',
  });
}

async function namesIn(out: string): Promise<string[]> {
  return readdir(out).catch(() => []);
}

/** The same, or of the checkpoint where the log does not say it: a run that went on with another config may have saved none since. */
async function lastHash(out: string, {trainer}: Checkpoint): Promise<string> {
  const records = (await exists(logPath(out))) ? await readRunLog(logPath(out)) : [];
  return newestHash(records) ?? trainer.configHash;
}

/** Of the config that a run last began or went on with, by its log. */
function newestHash(records: readonly RunLogRecord[]): string | undefined {
  return records.flatMap((record) => ('configHash' in record ? (record.configHash ?? []) : [])).at(-1);
}

async function refuseOtherConfig(out: string, found: string, wanted: TrainRun['config']): Promise<void> {
  if (found === wanted.hash) return;
  const path = join(out, CONFIG);
  const keys = await differencesOf(out, wanted);
  const which = keys.length > 0 ? `: ${keys.join(', ')}` : '';
  throw new UsageError(`${out} holds a run of another config${which}.`, {
    hint: `Its config is ${path}. Say --overwrite to start again, --allow-change (train, recover) to go on with the new one, or choose another name or folder.`,
  });
}

function completed(out: string, last: RunLogRecord | undefined): TrainResult | null {
  if (last?.kind !== 'end' || (last.reason !== 'completed' && last.reason !== 'early')) return null;
  return {out, step: last.step, tokens: last.tokens, reason: last.reason, signal: null};
}
