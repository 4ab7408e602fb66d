import {readFile} from 'node:fs/promises';
import {ConfigError, systemCode, UsageError, whyUnread} from '../util/errors.js';
import {type ArmFlags, armOverrides} from './arm-flags.js';
import type {PathStep} from './json-schema.js';
import {applyOverrides, type Override, parseOverride} from './override.js';
import {checkConfig, type Problem, renderPath} from './problem.js';
import type {Config} from './schema.js';
import {type ConfigSource, parseSource} from './source.js';

/** How a config file is read. */
export interface LoadOptions {
  /** Overrides as they are typed after `--set`: `train.steps=200`. They win over the file, later ones over earlier ones. */
  readonly set?: readonly string[] | undefined;
  /** There for a text that was made out of flags: errors name those, and no lines of a file that nobody has. They give way to `set`. */
  readonly flags?: readonly Override[] | undefined;
  /** Keys of one arm; they win over `set`. */
  readonly arm?: ArmFlags | undefined;
}

/** A checked config and where it comes from. */
export interface LoadedConfig {
  readonly config: Config;
  readonly file: string;
  /**
   * Where the first of some keys that a person wrote stands, for errors found later: `file:line:column`, or the `--set`
   * that gave it. If none was written, where the first would be.
   */
  readonly at: (path: readonly PathStep[], ...others: (readonly PathStep[])[]) => string;
}

/**
 * Reads a YAML config, applies overrides, fills in defaults and checks everything.
 *
 * Relative paths inside it are left as they are: the working directory is what they are relative to.
 * @throws ConfigError listing every problem as `file:line:column: key: what is wrong`, or if there is no such file;
 * UsageError if only overrides are at fault.
 */
export async function loadConfig(file: string, options: LoadOptions = {}): Promise<LoadedConfig> {
  return parseConfig(await readText(file), file, options);
}

/** The same for a text that is at hand; `file` is what errors call it. */
export function parseConfig(text: string, file: string, {set = [], flags: made, arm}: LoadOptions = {}): LoadedConfig {
  const source = parseSource(text, file, made === undefined);
  const changes = [...(made ?? []), ...set.map(parseOverride)];
  const changed = applyOverrides(source.value, changes);
  const flags = arm ? armOverrides(changed, file, arm) : [];
  const overrides = [...changes, ...flags];
  const checked = checkConfig(applyOverrides(changed, flags));
  if ('problems' in checked) throw configError(checked.problems, source, overrides);
  const at = (path: readonly PathStep[], ...others: (readonly PathStep[])[]): string => {
    const [next, ...rest] = others;
    const override = giverOf(path, overrides);
    if (next && !override && !source.has(path)) return at(next, ...rest);
    const written = override ?? makerOf(path, source, overrides);
    return written ? written.typed : source.at(path);
  };
  return {config: checked.config, file, at};
}

function configError(problems: readonly Problem[], source: ConfigSource, overrides: readonly Override[]): Error {
  const lines = problems.map((problem) => {
    const override = originOf(problem, source, overrides);
    const where = override?.typed ?? source.at(problem.path, problem.part);
    return {where, isOfFile: !override, text: `${where}: ${sentence(problem)}`};
  });
  const message = lines
    .sort((a, b) => a.where.localeCompare(b.where, 'en', {numeric: true}))
    .map(({text}) => text)
    .join('\n');
  const hint = methodHint(problems, overrides);
  const details = hint === null ? {} : {hint};
  return lines.some(({isOfFile}) => isOfFile) ? new ConfigError(message, details) : new UsageError(message, details);
}

/** What to do about keys that an arm keeps though its method was changed to one that does not know them. */
function methodHint(problems: readonly Problem[], overrides: readonly Override[]): string | null {
  const isOfArm = ({path: [section, name, key]}: Pick<Problem, 'path'>, arm: Override): boolean =>
    section === 'arms' && name === arm.path[1] && key !== 'method';
  const changed = overrides.findLast(({path: [section, , key]}) => section === 'arms' && key === 'method');
  if (!changed || !problems.some((problem) => problem.part === 'key' && isOfArm(problem, changed))) return null;
  return `An arm keeps its other keys when its method is changed; --set 'arms.${changed.path[1]}={method: ..., experts: ..., topK: ...}' replaces it whole.`;
}

function sentence({path, message}: Problem): string {
  const text = path.length > 0 ? `${renderPath(path)}: ${message}` : message;
  return /[.?]$/.test(text) ? text : `${text}.`;
}

/** The override that a problem comes from: it gave the value or a part above it, or made the key or its section. */
function originOf({path, part}: Problem, source: ConfigSource, overrides: readonly Override[]): Override | undefined {
  return giverOf(path, overrides) ?? makerOf(part === 'key' ? path : path.slice(0, -1), source, overrides);
}

/** The override that gave the value at a path, or a part above it. */
function giverOf(path: readonly PathStep[], overrides: readonly Override[]): Override | undefined {
  return overrides.findLast((override) => startsWith(path, override.path));
}

/** The override that made a section which the file does not have. */
function makerOf(
  path: readonly PathStep[],
  source: ConfigSource,
  overrides: readonly Override[],
): Override | undefined {
  return source.has(path) ? undefined : overrides.find((override) => startsWith(override.path, path));
}

function startsWith(path: readonly PathStep[], start: readonly PathStep[]): boolean {
  return start.length <= path.length && start.every((step, i) => step === path[i]);
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === undefined) throw cause;
    const inConfig = systemCode(cause) === 'EISDIR' ? 'A model is named in a config, by its key `model`; ' : '';
    throw new ConfigError(`${file}: ${whyUnread(cause)}.`, {
      hint: `${inConfig}configs/ holds configs to start from.`,
      cause,
    });
  }
}
