import {join} from 'node:path';
import type {DataOptions} from '../data/options.js';
import type {SourceShards} from '../data/shards.js';
import type {EngineInput} from '../engine/options.js';
import type {EngineInfo} from '../engine/start.js';
import type {Model} from '../model/model.js';
import type {TrainerState} from './checkpoint.js';
import type {RunInputs} from './inputs.js';
import type {TrainOptions} from './options.js';
import type {RunTeacher} from './teacher.js';

/** One run of the trainer. */
export interface TrainRun {
  readonly name: string;
  readonly arm: string;
  /** Dense or MoE folder the run starts from. */
  readonly model: string;
  /** Run folder. */
  readonly out: string;
  /** Where packed shards are kept, shared by the runs of a comparison. */
  readonly shards: string;
  readonly seed: number;
  readonly data: DataOptions;
  readonly train: TrainOptions;
  readonly engine: EngineInput;
  /** The resolved config, written to the run folder, and the hash by which a resumed run is recognised. */
  readonly config: {readonly yaml: string; readonly hash: string};
  /** `new` refuses a folder that exists, `resume` goes on from its last checkpoint, `overwrite` starts again. */
  readonly mode: 'new' | 'resume' | 'overwrite';
  /** Whether a run may go on although its config, model or text is another than when it began. */
  readonly allowsChange?: boolean;
}

/** How a run ended. */
export interface TrainResult {
  readonly out: string;
  readonly step: number;
  readonly tokens: number;
  readonly reason: 'completed' | 'early' | 'interrupted';
  /** The signal that interrupted it. */
  readonly signal: NodeJS.Signals | null;
}

/** A whole checkpoint to go on from. */
export interface Checkpoint {
  readonly path: string;
  readonly trainer: TrainerState;
}

/** What training needs, opened. */
export interface Session {
  readonly run: TrainRun;
  readonly model: Model;
  /** What is learnt from besides the text; null if nothing is. */
  readonly teacher: RunTeacher | null;
  readonly sources: readonly SourceShards[];
  readonly engine: EngineInfo;
  readonly checkpoint: Checkpoint | null;
  readonly inputs: RunInputs;
  /** What is another than when the run began: keys of the config, and inputs; allowed, or there would be no session. */
  readonly changes: readonly string[];
}

/** Path of a run's log. */
export function logPath(out: string): string {
  return join(out, 'log.jsonl');
}
