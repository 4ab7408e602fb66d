import {createHash} from 'node:crypto';
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import type {Config} from '../config/schema.js';
import {NUMBERS} from '../downcycle/numbers.js';
import {isSplit} from '../downcycle/options.js';
import {profileNeeds} from '../downcycle/partition/plan-conversion.js';
import {type Profile, readingFrom, readProfile, writeProfile} from '../downcycle/profile-file.js';
import {isProfileOf, type ProfileProgress, profileModel} from '../downcycle/profile-model.js';
import type {ProfileOptions} from '../downcycle/profile-options.js';
import {removeProgress} from '../downcycle/profile-progress.js';
import {refuseExisting} from '../util/atomic.js';
import {DowncycleError} from '../util/errors.js';
import {begin} from './begin.js';
import {checkPaths} from './check.js';
import type {CompareEvent} from './compare.js';
import {layoutOf} from './layout.js';
import {resolveModels} from './resolve-models.js';

/** Told what happens. */
export type OnEvent = (event: CompareEvent) => void;

/** What makes a sample too long for a row. */
const SAMPLE_LENGTH = [
  ['profile', 'tokensPerSample'],
  ['data', 'sequenceLength'],
] as const;

/** How a config's model is profiled: as its `profile` says, and with what the methods of its arms look at besides. */
export function profileOptionsOf({profile, arms}: Config): ProfileOptions {
  const needs = Object.values(arms).flatMap((options) =>
    'like' in options || !isSplit(options) ? [] : [profileNeeds(options)],
  );
  return {
    ...profile,
    predictors: profile.predictors || needs.some(({predictors}) => predictors),
    gradients: profile.gradients || needs.some(({gradients}) => gradients),
  };
}

/**
 * Profiles a config's dense model into a file.
 *
 * @throws EnvironmentError if something stands at `out`; what profiling throws.
 */
export async function profileConfig(given: LoadedConfig, out: string, onEvent: OnEvent): Promise<Profile> {
  await refuseExisting(out);
  const loaded = await resolveModels(given, {}, onEvent);
  const {config, at} = loaded;
  await checkPaths(loaded);
  await begin(config, [config.model], onEvent);
  const {model, data} = config;
  const made = await profileModel(
    {
      model,
      data,
      profile: profileOptionsOf(config),
      shards: layoutOf(config).shards,
      partial: `${out}.partial`,
      where: at(...SAMPLE_LENGTH),
    },
    (what, done, total) => onEvent({kind: 'profile', what, done, total}),
  );
  return keepProfile(out, made, `${out}.partial`);
}

/** The profile of a config's dense model on its calibration text; kept on disk by what it depends on. */
export async function profileOf({config, at}: LoadedConfig, onProgress?: ProfileProgress): Promise<Profile> {
  const {model, data} = config;
  const profile = profileOptionsOf(config);
  const {shards, profile: folder} = layoutOf(config);
  const key = createHash('sha256')
    .update(JSON.stringify({model, data, profile, numbers: NUMBERS}))
    .digest('hex')
    .slice(0, 8);
  const path = join(folder, `${key}.safetensors`);
  const how = {model, data, profile, shards, partial: `${path}.partial`, where: at(...SAMPLE_LENGTH)};
  const known = await readProfile(path).catch((error: unknown) => {
    if (error instanceof DowncycleError) return null;
    throw error;
  });
  if (known && (await isProfileOf(known, how))) return known;
  const made = await profileModel(how, onProgress);
  await rm(path, {force: true}); // unreadable, of other weights or text, or absent
  return keepProfile(path, made, how.partial);
}

/** Writes a profile and removes what was kept of it in parts. */
async function keepProfile(path: string, made: Profile, partial: string): Promise<Profile> {
  await writeProfile(path, made);
  const kept = await readingFrom(path, made);
  await removeProgress(partial);
  return kept;
}
