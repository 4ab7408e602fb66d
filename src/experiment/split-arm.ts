// Conversions of the config's dense model that measure something on the config's calibration text.
import type {Config} from '../config/schema.js';
import type {Calibration} from '../downcycle/calibration.js';
import {type Conversion, type ConvertOptions, convert, needsCalibration, planOf} from '../downcycle/convert.js';
import {type DiveConversion, type DiveConvertOptions, dive} from '../downcycle/dive.js';
import type {DiveOptions} from '../downcycle/dive-options.js';
import {isScaled, type SplitOptions} from '../downcycle/options.js';
import {measureRoutedScale} from '../downcycle/output-scale.js';
import type {ConversionPlan} from '../downcycle/plan.js';
import {calibrationOf, type ProfileProgress} from '../downcycle/profile-model.js';
import {ConfigError} from '../util/errors.js';
import {layoutOf} from './layout.js';
import {revisionOf} from './resolve-models.js';

/** Splits the config's dense model; what must be measured for it is measured on the config's calibration text. */
export async function convertSplit(
  method: SplitOptions,
  config: Config,
  given: Pick<ConvertOptions, 'out' | 'profile' | 'where'>,
): Promise<Conversion> {
  const how = {model: config.model, method, seed: config.seed, ...(await revisionOf(config.model)), ...given};
  const isFitted = needsCalibration(method);
  const calibration = isScaled(method) || isFitted ? await calibrationFor(how, config) : null;
  const scaled = isScaled(method) && calibration ? await withScale(how, calibration) : {};
  return convert({...how, ...scaled, ...(calibration && isFitted && {calibration})});
}

/** Makes a mixture of pruned copies of the config's dense model; they are measured on the config's calibration text. */
export async function convertDive(
  method: DiveOptions,
  config: Config,
  given: Pick<DiveConvertOptions, 'out' | 'profile' | 'where' | 'dryRun'>,
  onProgress?: ProfileProgress,
): Promise<DiveConversion> {
  const calibration = await calibrationFor(given, config);
  const onLayer = (done: number, total: number): void =>
    onProgress?.('taking pruned models through layers', done, total);
  const {model, seed} = config;
  return dive({model, method, seed, calibration, ...(await revisionOf(model)), ...given}, {onLayer});
}

/**
 * The calibration text of the config.
 *
 * @throws ConfigError if the profile, which the record of the conversion names, was made on other text.
 */
async function calibrationFor(
  {profile, where}: Pick<ConvertOptions, 'profile' | 'where'>,
  config: Config,
): Promise<Calibration> {
  const {model, data, profile: options} = config;
  const calibration = await calibrationOf({model, data, profile: options, shards: layoutOf(config).shards});
  if (!profile || profile.metadata.tokenHash === calibration.hash) return calibration;
  throw new ConfigError(
    `${where}: outputScale match, regroup, router ridge, router centroid, repair refit and method dive measure on the calibration text of the config, but the profile was made on other text.`,
    {hint: 'Make the profile with this config, or leave --profile out.'},
  );
}

/** The plan of a conversion and the factors of its routed sums. */
async function withScale(
  how: Omit<ConvertOptions, 'out'>,
  calibration: Calibration,
): Promise<{plan: ConversionPlan; routedScale: number[]}> {
  const plan = await planOf({...how, calibration});
  return {plan, routedScale: await measureRoutedScale(how.model, plan, calibration, how)};
}
