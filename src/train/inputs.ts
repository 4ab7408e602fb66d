// What a run is made of besides its config: paths stay the same when what lies there does not.
import {isSameShard, shardFingerprint} from '../data/fingerprint.js';
import type {SourceShards} from '../data/shards.js';
import {isModel, openModelFolder} from '../format/model-folder.js';
import {readRunLog} from '../format/run-log.js';
import {architectureFromConfig} from '../model/config.js';
import {modelFingerprint} from '../model/fingerprint.js';
import {UsageError} from '../util/errors.js';
import {logPath, type TrainRun} from './session.js';

/** Fingerprints by name: `model`, `teacher` if there is one, and `<source>.train` and `<source>.valid` for every source. */
export type RunInputs = Readonly<Record<string, string>>;

/** The fingerprints of what a run reads. A model that is no more there has none: a full finetune goes on without it. */
export async function inputsOf(
  {model, train, data: {damaged}}: TrainRun,
  sources: readonly SourceShards[],
): Promise<RunInputs> {
  const inputs: Record<string, string> = {};
  if (isModel(model)) inputs.model = await fingerprintOf(model);
  if (train.distill) inputs.teacher = await fingerprintOf(train.distill.from);
  for (const {name, train, valid} of sources) {
    inputs[`${name}.train`] = await shardFingerprint(train, damaged);
    if (valid) inputs[`${name}.valid`] = await shardFingerprint(valid);
  }
  return inputs;
}

/** @throws UsageError that says what is another than when the run began; logs that do not tell are believed. */
export async function refuseOtherInputs({out, model, train}: TrainRun, now: RunInputs): Promise<void> {
  const changed = await otherInputs(out, now);
  if (changed.length === 0) return;
  const which = changed.map((name) => describeInput(name, {model, teacher: train.distill?.from ?? ''}));
  throw new UsageError(`${out} was begun with others than there are now: ${which.join(', ')}.`, {
    hint: 'Put back what was there, say --overwrite to start again, --allow-change (train, recover) to go on with the new, or choose another name or folder.',
  });
}

/** Names of the inputs that are others than those the run last began or went on with. */
export async function otherInputs(out: string, now: RunInputs): Promise<string[]> {
  const records = await readRunLog(logPath(out));
  const then = records.findLast((record) => 'inputs' in record && record.inputs !== undefined);
  const known = then && 'inputs' in then ? (then.inputs ?? {}) : {};
  return Object.entries(now).flatMap(([name, fingerprint]) => {
    const before = known[name];
    return before === undefined || isSameShard(before, fingerprint) ? [] : [name]; // of weights it is one hash
  });
}

function describeInput(name: string, paths: {readonly model: string; readonly teacher: string}): string {
  return name === 'model' || name === 'teacher' ? `the weights of ${paths[name]}` : `the packed text ${name}`;
}

/** Of a model folder or file; see {@link modelFingerprint}. */
export async function fingerprintOf(path: string): Promise<string> {
  const folder = await openModelFolder(path);
  try {
    return await modelFingerprint(folder, architectureFromConfig(folder.config, folder.configFile));
  } finally {
    await folder.close();
  }
}
