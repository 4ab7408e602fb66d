/** What a person reads besides the message: what to do, and what caused it. */
export interface ErrorDetails {
  /** One sentence that says what to do next. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An error a person can act on. The class says who must act, and with it the exit code. */
export abstract class DowncycleError extends Error {
  abstract readonly exitCode: number;
  readonly hint: string | undefined;

  constructor(message: string, {hint, cause}: ErrorDetails = {}) {
    super(message, cause === undefined ? undefined : {cause});
    this.name = new.target.name;
    this.hint = hint;
  }
}

/** The command line is wrong: the person who typed it acts. */
export class UsageError extends DowncycleError {
  readonly exitCode = 2;
}

/** A config file asks for something impossible or unknown; the message starts with `file:line:column`. */
export class ConfigError extends DowncycleError {
  readonly exitCode = 3;
}

/** Text, shards or tokenizer do not fit: whoever prepared the data acts. */
export class DataError extends DowncycleError {
  readonly exitCode = 4;
}

/** A model folder or checkpoint is damaged or of another shape: whoever made it acts. */
export class ModelError extends DowncycleError {
  readonly exitCode = 5;
}

/** The machine cannot do it: disk, permissions, missing or broken engine. */
export class EnvironmentError extends DowncycleError {
  readonly exitCode = 6;
}

/** The text of an error for a terminal: one line, then the hint if there is one. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error instanceof DowncycleError && error.hint ? `${error.message} ${error.hint}` : error.message;
}

/** The Node error code of a failed system call (`ENOSPC`, `ENOENT` ...), or undefined. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const UNREAD: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'this is a folder, a file was expected',
  EACCES: 'not allowed to read it',
  EPERM: 'not allowed to read it',
};

/** Why a file could not be read, in words. */
export function whyUnread(error: unknown): string {
  return UNREAD[systemCode(error) ?? ''] ?? (error instanceof Error ? error.message : String(error));
}

/** An error as one process tells it another. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  readonly hint?: string;
  readonly stack?: string;
}

/** An error as a plain record, without its cause. */
export function recordOf(error: unknown): ErrorRecord {
  if (!(error instanceof Error)) return {name: 'Error', message: String(error)};
  const hint = error instanceof DowncycleError ? error.hint : undefined;
  const {name, message, stack} = error;
  return {name, message, ...(hint !== undefined && {hint}), ...(stack !== undefined && {stack})};
}

const CLASSES = [UsageError, ConfigError, DataError, ModelError, EnvironmentError];

/** The error of a record, of the same class; a plain one where that is none of those here. */
export function errorOf({name, message, hint, stack}: ErrorRecord): Error {
  const known = CLASSES.find((one) => one.name === name);
  const error = known ? new known(message, hint === undefined ? {} : {hint}) : new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
