import {UsageError} from '../util/errors.js';
import {valueAt} from './json-schema.js';
import {type Override, parseValue} from './override.js';
import {missingArm} from './schema.js';

/** Keys of one arm that flags of a command line give. */
export interface ArmFlags {
  /** Name of the arm; the `arm` of the config, or its only one, if absent. */
  readonly arm?: string | undefined;
  readonly flags: readonly ArmFlag[];
}

/** One flag and the key it gives: `--top-k 6` gives `topK`. */
export interface ArmFlag {
  readonly flag: string;
  readonly key: string;
  /** As it was typed; true for a flag that stands alone. */
  readonly value: string | true;
}

/**
 * What flags say of an arm as overrides of the config. In a config without arms they make one, called after its method.
 *
 * @throws UsageError if there is no such arm, or several and none was named; if a value cannot be read.
 */
export function armOverrides(config: unknown, file: string, {arm, flags}: ArmFlags): Override[] {
  if (flags.length === 0) return [];
  const name = armOf(config, file, arm, flags);
  return flags.map(({flag, key, value}) => {
    const typed = value === true ? flag : `${flag} ${value}`;
    return {typed, path: ['arms', name, key], value: value === true || parseValue(typed, value)};
  });
}

function armOf(config: unknown, file: string, named: string | undefined, flags: readonly ArmFlag[]): string {
  const arms = Object.keys(valueAt(config, 'arms') ?? {});
  const name = named ?? valueAt(config, 'arm');
  if (typeof name === 'string') {
    if (arms.includes(name)) return name;
    throw new UsageError(`${missingArm(name, arms)}.`.replace(/^t/, 'T'));
  }
  const [only] = arms;
  if (only !== undefined && arms.length === 1) return only;
  if (only !== undefined) {
    throw new UsageError(`${file} has several arms: ${arms.join(', ')}.`, {hint: `Choose one, e.g. --arm ${only}`});
  }
  const method = flags.find(({key}) => key === 'method')?.value;
  if (typeof method === 'string') return method;
  throw new UsageError(`${file} has no arm that ${flags[0]?.flag} could change.`, {
    hint: 'Say --method, and with it --experts and --top-k, or name an arm under `arms`.',
  });
}
