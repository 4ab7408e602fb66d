// An arm of method cmoe whose model is a mixture of experts already.
import type {ArmOptions, Config} from '../config/schema.js';
import {hasExperts} from '../downcycle/inner/plan.js';
import type {CmoeOptions} from '../downcycle/options.js';
import {calibrationOf, type ProfileProgress} from '../downcycle/profile-model.js';
import {type ExpertsConversion, type SplitExpertsOptions, splitExperts} from '../downcycle/split-experts.js';
import {readArchitecture} from '../model/read-architecture.js';
import {revisionOf} from './resolve-models.js';

/** The options of an arm that cuts the experts of the config's model, a mixture; null of any other arm. */
export async function cutsExperts(options: ArmOptions, {model}: Config): Promise<CmoeOptions | null> {
  if ('like' in options || options.method !== 'cmoe') return null;
  return hasExperts(await readArchitecture(model)) ? options : null;
}

/** Cuts the experts of the config's model; they are watched on the config's calibration text. */
export async function convertExperts(
  method: CmoeOptions,
  {model, data, profile, seed}: Config,
  {shards, ...given}: Pick<SplitExpertsOptions, 'out' | 'where' | 'dryRun'> & {readonly shards: string},
  onProgress?: ProfileProgress,
): Promise<ExpertsConversion> {
  const calibration = await calibrationOf({model, data, profile, shards});
  const onLayer = (done: number, total: number): void => onProgress?.('watching experts', done, total);
  const origin = await revisionOf(model);
  return splitExperts({model, method, seed, calibration, profile, ...origin, ...given}, {onLayer});
}
