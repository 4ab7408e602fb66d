// What the environment says of the hub: the variables and files that Python's huggingface_hub reads, too.
import {readFileSync} from 'node:fs';
import {homedir} from 'node:os';
import {join, resolve} from 'node:path';
import {EnvironmentError} from '../util/errors.js';

/** A server of models, and who asks it. */
export interface Hub {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** Sent to the endpoint and to nobody else; null for whoever has none. */
  readonly token: string | null;
  readonly signal?: AbortSignal | undefined;
}

const DEFAULT_ENDPOINT = 'https://huggingface.co';

/** The cache that Python's huggingface_hub uses, too; it need not exist. */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  return expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(homeFolder(env), 'hub'), env);
}

/** Whether no network may be used. */
export function isOffline(env: NodeJS.ProcessEnv): boolean {
  return [env.HF_HUB_OFFLINE, env.TRANSFORMERS_OFFLINE].some((word = '') => /^(1|on|yes|true)$/i.test(word));
}

/**
 * The server to ask, with the token if there is one.
 *
 * @throws EnvironmentError if HF_ENDPOINT is no address, or the token cannot be sent.
 */
export function hubOf(env: NodeJS.ProcessEnv, signal?: AbortSignal): Hub {
  return {endpoint: endpointOf(env), token: tokenOf(env), signal};
}

/** The host of an address, which is what messages name: an address may hold more than a log should. */
export function hostOf(address: string): string {
  return new URL(address).host;
}

function endpointOf({HF_ENDPOINT}: NodeJS.ProcessEnv): string {
  const address = HF_ENDPOINT || DEFAULT_ENDPOINT;
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password) return address.replace(/\/+$/, '');
  throw new EnvironmentError('HF_ENDPOINT is not the address of a server.', {
    hint: `Give one such as ${DEFAULT_ENDPOINT}, without user and password, or unset it.`,
  });
}

function tokenOf(env: NodeJS.ProcessEnv): string | null {
  const file = expand(env.HF_TOKEN_PATH || join(homeFolder(env), 'token'), env);
  const token = env.HF_TOKEN?.trim() || readText(file).trim();
  if (token === '') return null;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  // fetch would refuse it, too, with a message that shows it
  throw new EnvironmentError('The token for the hub holds characters that no token has.', {
    hint: 'Correct HF_TOKEN, or the file that HF_TOKEN_PATH names: one line with nothing but the token.',
  });
}

function homeFolder(env: NodeJS.ProcessEnv): string {
  return env.HF_HOME || join(env.XDG_CACHE_HOME || join(userFolder(env), '.cache'), 'huggingface');
}

function expand(path: string, env: NodeJS.ProcessEnv): string {
  return resolve(path.replace(/^~(?=\/|$)/, () => userFolder(env)));
}

function userFolder(env: NodeJS.ProcessEnv): string {
  return env.HOME || homedir();
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // most people have none, and need none
  }
}
