// The public interface: what each command does, as a function with the same options.
export {configJsonSchema} from './config/json-schema.js';
export {type LoadedConfig, type LoadOptions, loadConfig, parseConfig} from './config/load.js';
export {configHash, resolvedYaml} from './config/resolved.js';
export {type ArmOptions, type Config, type ConfigInput, configSchema} from './config/schema.js';
export {type PrepareOptions, type PrepareProgress, type PrepareResult, prepare} from './data/prepare.js';
export type {Calibration} from './downcycle/calibration.js';
export {type Conversion, type ConvertOptions, convert, planOf} from './downcycle/convert.js';
export {readKeptNeurons} from './downcycle/dive/kept-neurons.js';
export {type DiveConversion, type DiveConvertOptions, dive} from './downcycle/dive.js';
export {readNeuronMaps} from './downcycle/neuron-maps.js';
export {type MethodOptions, methodSchema, type SplitOptions, splitSchema} from './downcycle/options.js';
export {measureRoutedScale} from './downcycle/output-scale.js';
export type {ConversionPlan} from './downcycle/plan.js';
export {type Profile, readProfile, writeProfile} from './downcycle/profile-file.js';
export {
  calibrationOf,
  type ProfileModelOptions,
  type ProfileProgress,
  profileModel,
} from './downcycle/profile-model.js';
export {proveConversion} from './downcycle/proof.js';
export {type ExpertsConversion, type SplitExpertsOptions, splitExperts} from './downcycle/split-experts.js';
export {type ScratchOptions, scratch, type UpcycleOptions, type Upcycling, upcycle} from './downcycle/upcycle.js';
export {diagnose, type Finding, type MachineFacts} from './engine/doctor.js';
export {gatherFacts} from './engine/doctor-facts.js';
export {type EngineInfo, engineInfo, startEngine} from './engine/start.js';
export {type EvaluateOptions, type EvaluateProgress, type Evaluation, evaluate} from './eval/evaluate.js';
export {type Generated, type GenerateEvent, type GenerateOptions, generate} from './eval/generate.js';
export {type CompareEvent, type CompareOptions, type Comparison, compare} from './experiment/compare.js';
export {compareConversions} from './experiment/conversions.js';
export {type WrittenEvaluation, writeEvaluation} from './experiment/evaluation-report.js';
export {type Inspection, inspect} from './experiment/inspect.js';
export {
  type ConfigEstimate,
  type ConvertArmOptions,
  convertArm,
  estimateConfig,
  type TrainConfigOptions,
  trainConfig,
} from './experiment/one-arm.js';
export {type RecoverOptions, type Recovery, recover, recoverConfig} from './experiment/recover.js';
export {type Exported, type ExportOptions, exportModel, exportPlans} from './export/export.js';
export type {ExportPlan, Refusal} from './export/plan.js';
export {openRunLog, type RunLog, readRunLog} from './format/run-log.js';
export {type RunLogRecord, runLogRecord} from './format/run-record.js';
export {openTokenShard, type TokenShard} from './format/token-shard.js';
export type {DownloadProgress} from './hub/download.js';
export {type PulledModel, type PullOptions, pull} from './hub/pull.js';
export {type ResolvedModel, type ResolveOptions, resolveModel} from './hub/resolve.js';
export {loadModel, type Model} from './model/model.js';
export {type WriteReportOptions, type WrittenReport, writeReport} from './report/report.js';
export {loadTokenizer, type Tokenizer} from './tokenizer/tokenizer.js';
export {estimateRun, type RunEstimate} from './train/estimate.js';
export type {TrainEvent} from './train/event.js';
export {requireFit} from './train/fit.js';
export {type Merged, type MergeOptions, mergeAdapter} from './train/merge.js';
export {train} from './train/run.js';
export type {TrainResult, TrainRun} from './train/session.js';
export {
  ConfigError,
  DataError,
  DowncycleError,
  EnvironmentError,
  ModelError,
  UsageError,
} from './util/errors.js';
