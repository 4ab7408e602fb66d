import {readFile} from 'node:fs/promises';
import {ConfigError, systemCode, UsageError} from '../util/errors.js';
import type {PathStep} from './json-schema.js';
import {applyOverrides, type Override, parseOverride} from './override.js';
import {checkConfig, type Problem, renderPath} from './problem.js';
import type {Config} from './schema.js';
import {type ConfigSource, parseSource} from './source.js';

/** How a config file is read. */
export interface LoadOptions {
  /** Overrides as they are typed after `--set`: `train.steps=200`. They win over the file, later ones over earlier ones. */
  readonly set?: readonly string[] | undefined;
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
export function parseConfig(text: string, file: string, {set = []}: LoadOptions = {}): LoadedConfig {
  const overrides = set.map(parseOverride);
  const source = parseSource(text, file);
  const checked = checkConfig(applyOverrides(source.value, overrides));
  if ('problems' in checked) throw configError(checked.problems, source, overrides);
  const isWritten = (path: readonly PathStep[]): boolean =>
    source.has(path) || originOf({path, part: 'value', message: ''}, source, overrides) !== undefined;
  const at = (path: readonly PathStep[], ...others: (readonly PathStep[])[]): string => {
    const [next, ...rest] = others;
    if (next && !isWritten(path)) return at(next, ...rest);
    const override = originOf({path, part: 'value', message: ''}, source, overrides);
    return override ? `--set ${override.text}` : source.at(path);
  };
  return {config: checked.config, file, at};
}

function configError(problems: readonly Problem[], source: ConfigSource, overrides: readonly Override[]): Error {
  const lines = problems.map((problem) => {
    const override = originOf(problem, source, overrides);
    const where = override ? `--set ${override.text}` : source.at(problem.path, problem.part);
    return {where, text: `${where}: ${sentence(problem)}`};
  });
  const message = lines
    .sort((a, b) => a.where.localeCompare(b.where, 'en', {numeric: true}))
    .map(({text}) => text)
    .join('\n');
  const isOfFile = lines.some(({where}) => !where.startsWith('--set '));
  return isOfFile ? new ConfigError(message) : new UsageError(message);
}

function sentence({path, message}: Problem): string {
  const text = path.length > 0 ? `${renderPath(path)}: ${message}` : message;
  return /[.?]$/.test(text) ? text : `${text}.`;
}

/** The override that a problem comes from: it gave the value or a part above it, or made the key. */
function originOf({path, part}: Problem, source: ConfigSource, overrides: readonly Override[]): Override | undefined {
  return overrides.findLast(
    (override) =>
      startsWith(path, override.path) || (part === 'key' && startsWith(override.path, path) && !source.has(path)),
  );
}

function startsWith(path: readonly PathStep[], start: readonly PathStep[]): boolean {
  return start.length <= path.length && start.every((step, i) => step === path[i]);
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      EISDIR: 'this is a folder, a YAML file was expected',
      EACCES: 'not allowed to read it',
    };
    const reason = reasons[systemCode(cause) ?? ''];
    if (reason === undefined) throw cause;
    throw new ConfigError(`${file}: ${reason}.`, {hint: 'configs/ holds configs to start from.', cause});
  }
}
