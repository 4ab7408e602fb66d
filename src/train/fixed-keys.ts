// What of a config cannot change within a run, whoever allows it: a checkpoint would have nothing for it, or not heed it.
import {UsageError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {checkpointModel} from './checkpoint.js';
import {configDifferences} from './config-difference.js';
import type {Checkpoint, TrainRun} from './session.js';

/** A part of a config, and why it stays. */
interface Fixed {
  readonly reason: string;
  /** Whether a changed key, in the words of {@link configDifferences}, is of it. */
  readonly is: (key: string, isLora: boolean) => boolean;
}

const FIXED: readonly Fixed[] = [
  {reason: 'what trains cannot change within a run', is: (key) => /^train\.finetune\.(?!(merge|dropout) )/.test(key)},
  {
    reason: 'the weights of the run are those of its checkpoint, whatever it started from',
    is: (key, isLora) => !isLora && isOfStart(key),
  },
  {
    reason: 'an optimizer cannot go on with what another kept',
    is: (key) => key.startsWith('train.optimizer.kind '),
  },
  {reason: 'running means begin with the run', is: (key) => /^train\.ema\S* \(not there,/.test(key)},
  {
    reason: 'the selection biases of a LoRA run begin and end with it',
    is: (key, isLora) => isLora && /^train\.balance\.kind .*\bbias\b/.test(key),
  },
];

/**
 * Compares with the config that the checkpoint was made by; checkpoints that do not hold it are believed.
 *
 * @throws UsageError if a key changed that is the same all through a run.
 */
export async function refuseFixed({path, trainer}: Checkpoint, {train, config}: TrainRun): Promise<void> {
  const isArm = /^arm:/m.test(config.yaml); // else the config's own model is trained, and nobody looks at a profile
  const all = configDifferences(trainer.config ?? '', config.yaml);
  const keys = isArm ? all : all.filter((key) => !key.startsWith('profile'));
  const isLora = train.finetune.kind === 'lora';
  for (const {reason, is} of FIXED) {
    const key = keys.find((one) => is(one, isLora));
    if (key === undefined) continue;
    const model = checkpointModel(path);
    const from = isOfStart(key) || !(await exists(model)) ? '' : `, for example from ${model}`;
    throw new UsageError(`${key} is another than when the run began: ${reason}.`, {
      hint: `Begin a run of another name with it${from}.`,
    });
  }
}

/** The model that a run starts from, the arm that makes it, and the profile that is looked at for it. */
function isOfStart(key: string): boolean {
  return /^(model|arm|arms|profile)[ .[]/.test(key);
}
