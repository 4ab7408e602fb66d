// What an answer of the hub that is no success means, and what to do about it.
import {EnvironmentError, ModelError} from '../util/errors.js';
import {type Asked, PassingError} from './retry.js';
import {type Hub, hostOf} from './settings.js';

const GIVE_TOKEN = 'give a token of an account that may read it: HF_TOKEN, or a file that HF_TOKEN_PATH names';
/** Seconds that are worth waiting for a busy server. */
const PATIENCE = 30;

/** The error of an answer. */
export function statusError(hub: Hub, asked: Asked, url: URL, {status, headers}: Response): Error {
  const host = hostOf(hub.endpoint);
  // What it redirects to is signed and runs out: asking the hub again gives a fresh address.
  if (url.origin !== new URL(hub.endpoint).origin && status < 500) {
    return new PassingError(`${asked.id}: ${url.host}, which ${host} redirects to, answers ${status}.`, {
      hint: 'Run it again later: what was downloaded is kept.',
    });
  }
  if (status === 429) return busyError(asked, host, headers.get('retry-after'));
  if (status >= 500) {
    return new PassingError(`${asked.id}: ${url.host} is out of order (${status}).`, {
      hint: 'Run it again later: what was downloaded is kept.',
    });
  }
  return refusal(hub, asked, status, headers.get('x-error-code'));
}

function refusal(hub: Hub, {id, revision}: Asked, status: number, code: string | null): Error {
  const host = hostOf(hub.endpoint);
  if (code === 'RevisionNotFound') {
    return new ModelError(`${id}: ${host} has no revision ${revision} of it (${status}).`, {
      hint: `Name a branch, a tag or a whole commit; ${hub.endpoint}/${id}/commits/main shows them.`,
    });
  }
  if (code === 'GatedRepo' || (status === 403 && code === null)) return gatedError(hub, id, status);
  if (status === 401 || status === 403 || status === 404) {
    return new EnvironmentError(
      `${id}: nothing of that name is here, and ${host} has no such model or keeps it private (${status}).`,
      {hint: `Correct the name or the path; for a private model, ${GIVE_TOKEN}.`},
    );
  }
  return new EnvironmentError(`${id}: ${host} answers ${status}.`, {hint: 'Check HF_ENDPOINT.'});
}

function gatedError({endpoint, token}: Hub, id: string, status: number): Error {
  const who = token === null ? 'without a token' : 'for the account of this token';
  return new EnvironmentError(`${id}: ${hostOf(endpoint)} does not give it out ${who} (${status}).`, {
    hint: `Ask for access at ${endpoint}/${id}, then ${GIVE_TOKEN}.`,
  });
}

/** Too many requests: waited for if that is short. */
function busyError({id}: Asked, host: string, retryAfter: string | null): Error {
  const seconds = secondsOf(retryAfter);
  const message = `${id}: ${host} has been asked too often from here (429).`;
  if (seconds === null) return new PassingError(message, {hint: 'Try again in a few minutes, or with a token.'});
  const hint = `Try again in ${seconds} seconds, or with a token.`;
  return seconds > PATIENCE
    ? new EnvironmentError(message, {hint})
    : new PassingError(message, {hint, wait: seconds * 1000});
}

/** `Retry-After` is a number of seconds, or a date. */
function secondsOf(text: string | null): number | null {
  if (text === null) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : Math.ceil((Date.parse(text) - Date.now()) / 1000);
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}
