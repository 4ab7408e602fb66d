import {EnvironmentError, systemCode} from '../util/errors.js';
import {type Asked, PassingError} from './retry.js';
import {type Hub, hostOf} from './settings.js';
import {statusError} from './status-error.js';

const MOST_REDIRECTS = 5;

/**
 * Sends a GET request and follows redirects; the token goes to the endpoint's host alone, never to one it redirects to.
 *
 * @throws PassingError if the server cannot be reached or is busy; what {@link statusError} makes of another answer.
 */
export async function get(
  hub: Hub,
  asked: Asked,
  address: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  let url = new URL(address);
  for (let i = 0; i <= MOST_REDIRECTS; i++) {
    const response = await send(hub, asked, url, headers);
    const location = response.status >= 300 && response.status < 400 ? response.headers.get('location') : null;
    if (location === null || !URL.canParse(location, url.href)) {
      if (response.ok) return response;
      await response.body?.cancel();
      throw statusError(hub, asked, url, response);
    }
    await response.body?.cancel();
    url = new URL(location, url);
  }
  throw new EnvironmentError(`${asked.id}: ${hostOf(address)} redirects without end.`, {
    hint: 'Check HF_ENDPOINT, or whether a proxy stands in between.',
  });
}

async function send(hub: Hub, asked: Asked, url: URL, headers: Readonly<Record<string, string>>): Promise<Response> {
  const isHome = url.origin === new URL(hub.endpoint).origin;
  const token = isHome && hub.token !== null ? {authorization: `Bearer ${hub.token}`} : {};
  try {
    return await fetch(url, {
      redirect: 'manual',
      // Ranges and sizes are of the file itself
      headers: {'accept-encoding': 'identity', 'user-agent': 'downcycle', ...headers, ...token},
      ...(hub.signal && {signal: hub.signal}),
    });
  } catch (cause) {
    throw unreached(hub, asked, url.host, cause);
  }
}

/** The error of a connection that was not made, or broke. */
export function unreached(hub: Hub, {id}: Asked, host: string, cause: unknown): unknown {
  if (hub.signal?.aborted) return cause;
  const inner = cause instanceof Error ? cause.cause : undefined;
  const reason = systemCode(inner) ?? systemCode(cause) ?? messageOf(inner) ?? messageOf(cause) ?? 'no reason given';
  return new PassingError(`${id}: nothing of that name is here, and ${host} could not be read (${reason}).`, {
    hint: 'If a folder was meant, correct the path. Else check the network and run it again: what was downloaded is kept.',
    cause,
  });
}

function messageOf(error: unknown): string | undefined {
  return error instanceof Error && error.message !== '' ? error.message : undefined;
}
