import type {Loader} from '../data/loader.js';
import type {RunLog} from '../format/run-log.js';
import type {TrainEvent} from './event.js';
import type {Progress} from './progress.js';
import type {Session} from './session.js';
import type {TrainState} from './state.js';
import type {RunnerOptions, StepRunner} from './step-runner.js';
import type {Validation} from './validation.js';

/** The parts the training loop works with. */
export interface Loop extends Session {
  readonly state: TrainState;
  readonly loader: Loader;
  readonly runner: StepRunner;
  readonly stepOptions: RunnerOptions;
  readonly validation: Validation;
  readonly log: RunLog;
  readonly progress: Progress;
  readonly onEvent: (event: TrainEvent) => void;
}
