import {createHash} from 'node:crypto';
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import type {Config} from '../config/schema.js';
import type {ProfileOptions} from '../downcycle/options.js';
import {profileNeeds} from '../downcycle/partition/plan-conversion.js';
import {type Profile, readProfile, writeProfile} from '../downcycle/profile-file.js';
import {type ProfileProgress, profileModel} from '../downcycle/profile-model.js';
import {isUpcycle} from '../downcycle/upcycle-options.js';
import {layoutOf} from './arm.js';

/** How a config's model is profiled: as its `profile` says, and with what the methods of its arms look at besides. */
export function profileOptionsOf({profile, arms}: Config): ProfileOptions {
  const needs = Object.values(arms).flatMap((options) =>
    'like' in options || isUpcycle(options) ? [] : [profileNeeds(options)],
  );
  return {
    ...profile,
    predictors: profile.predictors || needs.some(({predictors}) => predictors),
    gradients: profile.gradients || needs.some(({gradients}) => gradients),
  };
}

/** The profile of a config's dense model on its calibration text; kept on disk by what it depends on. */
export async function profileOf({config, at}: LoadedConfig, onProgress?: ProfileProgress): Promise<Profile> {
  const {model, data} = config;
  const profile = profileOptionsOf(config);
  const {shards, profile: folder} = layoutOf(config);
  const key = createHash('sha256').update(JSON.stringify({model, data, profile})).digest('hex').slice(0, 8);
  const path = join(folder, `${key}.safetensors`);
  const known = await readProfile(path).catch(() => null);
  if (known) return known;
  const made = await profileModel(
    {
      model,
      data,
      profile,
      shards,
      partial: `${path}.partial`,
      where: at(['profile', 'tokensPerSample'], ['data', 'sequenceLength']),
    },
    onProgress,
  );
  await rm(path, {force: true}); // unreadable, or absent
  await writeProfile(path, made);
  return made;
}
