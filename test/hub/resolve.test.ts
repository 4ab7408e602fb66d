import {mkdir, readdir, readFile, readlink, rm, symlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import type {DownloadProgress} from '../../src/hub/download.js';
import {pull} from '../../src/hub/pull.js';
import {isHubName, resolveModel} from '../../src/hub/resolve.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {COMMIT, FILES, gitHash, ID, sha256, startHub, TOKEN, WEIGHTS} from './server.js';

/** What a person reads of an error. */
async function failure(promise: Promise<unknown>): Promise<{error: unknown; text: string}> {
  const error: unknown = await promise.then(
    () => new Error('it went well'),
    (cause: unknown) => cause,
  );
  const {message, hint = '', stack = ''} = error as EnvironmentError;
  expect(`${message}${hint}${stack}${String((error as Error).cause)}`).not.toContain(TOKEN);
  return {error, text: `${message} ${hint}`};
}

describe('a model that is asked for by name', () => {
  test('lies in the cache as Python expects it, and is not asked for again', async () => {
    const {env, asked} = await startHub();
    const model = await resolveModel(ID, {env});
    const root = join(env.HF_HOME, 'hub', 'models--org--tiny');
    expect(model).toEqual({path: join(root, 'snapshots', COMMIT), revision: COMMIT});
    expect(await readFile(join(root, 'refs', 'main'), 'utf8')).toBe(COMMIT);
    expect(await readlink(join(model.path, 'model.safetensors'))).toBe(`../../blobs/${sha256(WEIGHTS)}`);
    expect(await readlink(join(model.path, 'config.json'))).toBe(
      `../../blobs/${gitHash(FILES['config.json'] as Uint8Array)}`,
    );
    expect(sha256(await readFile(join(model.path, 'model.safetensors')))).toBe(sha256(WEIGHTS));
    const before = asked.length;
    expect(await resolveModel(ID, {env})).toEqual(model);
    expect(await resolveModel(`${ID}@${COMMIT}`, {env: {...env, HF_HUB_OFFLINE: '1'}})).toEqual(model);
    expect(await resolveModel(model.path, {env})).toEqual(model);
    expect(asked.length).toBe(before);
  });

  test('may be given as its folder in the cache', async () => {
    const {env} = await startHub();
    const model = await resolveModel(ID, {env});
    const root = join(env.HF_HOME, 'hub', 'models--org--tiny');
    expect(await isHubName(root, env)).toBe(true);
    await expect(pull({model: root, env})).rejects.toThrow(`${root} is here already`);
    expect(await resolveModel(root, {env})).toEqual(model);
    expect(await resolveModel(`${root}/`, {env, revision: COMMIT})).toEqual(model);
    await rm(join(root, 'refs'), {recursive: true}); // the only snapshot will do
    expect(await resolveModel(root, {env})).toEqual(model);
    expect((await failure(resolveModel(root, {env, revision: 'v2'}))).text).toMatch(
      /: this folder of a cache holds 1 snapshot, which is not v2\. Name one, such as /,
    );
    await mkdir(join(root, 'snapshots', 'f'.repeat(40)));
    expect((await failure(resolveModel(root, {env}))).text).toBe(
      `${root}: this folder of a cache holds 2 snapshots, and none is main. Name one, such as ${join(root, 'snapshots', COMMIT)}.`,
    );
    await rm(join(root, 'snapshots'), {recursive: true});
    await mkdir(join(root, 'snapshots'));
    const {error, text} = await failure(resolveModel(root, {env}));
    expect(error).toBeInstanceOf(ModelError);
    expect(text).toBe(
      `${root}: this folder of a cache holds no snapshot of a model. Give the name of the model instead.`,
    );
  });

  test('is fetched without what is not needed', async () => {
    const {env} = await startHub();
    const {path} = await resolveModel(ID, {env});
    expect((await readdir(path)).sort()).toEqual(['README.md', 'config.json', 'model.safetensors', 'tokenizer.json']);
    expect((await readdir(join(path, '../../blobs'))).length).toBe(4);
  });

  test('is fetched in its shards, and not once more in the form of its maker', async () => {
    const [one, two] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const index = {weight_map: {a: one, b: two}};
    const {'config.json': config, 'tokenizer.json': tokenizer} = FILES as Record<string, Uint8Array>;
    const bytes = Buffer.from('weights');
    const weights = {[one as string]: bytes, [two as string]: Buffer.from('more'), 'consolidated.safetensors': bytes};
    const {env} = await startHub({
      files: {
        ...{'config.json': config!, 'tokenizer.json': tokenizer!},
        ...{'model.safetensors.index.json': Buffer.from(JSON.stringify(index)), ...weights},
      },
    });
    const {path} = await resolveModel(ID, {env});
    expect((await readdir(path)).filter((name) => name.endsWith('.safetensors')).sort()).toEqual([one, two]);
    await rm(join(path, two as string));
    const {text} = await failure(resolveModel(ID, {env: {...env, HF_HUB_OFFLINE: 'true'}}));
    expect(text).toContain(`without ${two}`);
  });

  test('tells how far it is, in bytes of all files', async () => {
    const {env} = await startHub();
    const seen: DownloadProgress[] = [];
    await resolveModel(ID, {env, onProgress: (progress) => seen.push(progress)});
    const done = seen.map((progress) => progress.done);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
    const {total} = seen[0]!;
    expect(seen.at(-1)).toEqual({id: ID, file: 'model.safetensors', done: total, total, fetched: total, holder: null});
  });

  test('is the folder of that name if there is one', async () => {
    const {env, asked} = await startHub();
    expect(await resolveModel('test/hub', {env})).toEqual({path: 'test/hub', revision: null});
    expect(asked).toEqual([]);
  });

  test.each(['./a/b', '/no/where', '~/a', 'a/b/c', 'src/nowhere', '', 'a/..', '../a', 'a/b@../c', 'a--b/c'])(
    'is none of the hub if it looks like a path: %j',
    async (name) => {
      const {env, asked} = await startHub();
      const {error, text} = await failure(resolveModel(name, {env}));
      expect(error).toBeInstanceOf(ModelError);
      expect(text).toContain('there is no such folder');
      expect(asked).toEqual([]);
    },
  );

  test('is one of the hub as a single word only if it is in the cache or has a revision', async () => {
    const {env} = await startHub({id: 'tiny'});
    expect(await isHubName('tiny', env)).toBe(false);
    expect(await isHubName('tiny@main', env)).toBe(true);
    await resolveModel('tiny', {env});
    expect(await isHubName('tiny', env)).toBe(true);
  });

  test('is found where Python put it, its files copied instead of linked', async () => {
    const {env, asked} = await startHub();
    const cache = join(env.HF_HOME, 'elsewhere');
    const path = join(cache, 'models--org--tiny', 'snapshots', COMMIT);
    await mkdir(path, {recursive: true});
    await mkdir(join(path, '../../refs'));
    await writeFile(join(path, '../../refs/main'), COMMIT);
    for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) await writeFile(join(path, name), '');
    expect(await resolveModel(ID, {env: {...env, HF_HUB_CACHE: cache}})).toEqual({path, revision: COMMIT});
    expect(asked).toEqual([]);
  });
});

describe('a download', () => {
  test('goes on where the connection broke, and fetches no byte twice', async () => {
    const {env, asked} = await startHub({cutAfter: 100_000});
    const {path} = await resolveModel(ID, {env});
    expect(sha256(await readFile(join(path, 'model.safetensors')))).toBe(sha256(WEIGHTS));
    const parts = asked.filter(({host}) => host === 'cdn');
    expect(parts.map(({range}) => range)).toEqual([undefined, 'bytes=100000-']);
    expect(parts.reduce((sum, {sent}) => sum + sent, 0)).toBe(WEIGHTS.length);
  });

  test('goes on from what an earlier process left', async () => {
    const {env, asked} = await startHub();
    const blobs = join(env.HF_HOME, 'hub/models--org--tiny/blobs');
    await mkdir(blobs, {recursive: true});
    await writeFile(join(blobs, `${sha256(WEIGHTS)}.incomplete`), WEIGHTS.subarray(0, 1000));
    const {path} = await resolveModel(ID, {env});
    expect(sha256(await readFile(join(path, 'model.safetensors')))).toBe(sha256(WEIGHTS));
    expect(asked.find(({host}) => host === 'cdn')?.range).toBe('bytes=1000-');
  });

  test('of other bytes than were promised is refused, and they are removed', async () => {
    const {env} = await startHub({sent: (bytes) => Uint8Array.from(bytes, (byte, i) => (i === 5 ? byte ^ 1 : byte))});
    const {error, text} = await failure(resolveModel(ID, {env}));
    expect(error).toBeInstanceOf(ModelError);
    expect(text).toContain('org/tiny: model.safetensors is not what 127.0.0.1');
    const root = join(env.HF_HOME, 'hub/models--org--tiny');
    expect((await readdir(join(root, 'blobs'))).filter((name) => name.startsWith(sha256(WEIGHTS)))).toEqual([]);
    expect(await readdir(join(root, 'snapshots', COMMIT))).not.toContain('model.safetensors');
  });

  test('of more bytes than were promised is refused', async () => {
    const {env} = await startHub({sent: (bytes) => Buffer.concat([bytes, bytes])});
    expect((await failure(resolveModel(ID, {env}))).text).toContain('is not what');
    const blobs = await readdir(join(env.HF_HOME, 'hub/models--org--tiny/blobs'));
    expect(blobs.some((name) => name.includes('incomplete'))).toBe(false);
  });

  test('by two at once fetches each file once', async () => {
    const {env, asked} = await startHub();
    const [one, other] = await Promise.all([resolveModel(ID, {env}), resolveModel(ID, {env})]);
    expect(one).toEqual(other);
    expect(asked.filter(({host}) => host === 'cdn').length).toBe(1);
  });

  test('puts back a file that is gone from the cache', async () => {
    const {env, asked} = await startHub();
    const {path} = await resolveModel(ID, {env});
    await rm(join(path, '../../blobs', sha256(WEIGHTS)));
    const before = asked.length;
    await resolveModel(ID, {env});
    expect(sha256(await readFile(join(path, 'model.safetensors')))).toBe(sha256(WEIGHTS));
    expect(asked.slice(before).map(({host}) => host)).toEqual(['hub', 'hub', 'hub', 'cdn']);
  });

  test('shows the token to the hub, and not to whom it redirects', async () => {
    const {env, asked} = await startHub();
    await resolveModel(ID, {env});
    const tokens = (host: string) => new Set(asked.filter((one) => one.host === host).map((one) => one.authorization));
    expect(tokens('hub')).toEqual(new Set([`Bearer ${TOKEN}`]));
    expect(tokens('cdn')).toEqual(new Set([undefined]));
  });

  test('takes the token from a file if no variable has one', async () => {
    const {env, asked} = await startHub();
    await writeFile(join(env.HF_HOME, 'token'), 'hf_first\n');
    await writeFile(join(env.HF_HOME, 'other'), 'hf_second');
    await resolveModel(ID, {env: {...env, HF_TOKEN: ''}});
    const named = {
      ...env,
      HF_TOKEN: '',
      HF_TOKEN_PATH: join(env.HF_HOME, 'other'),
      HF_HUB_CACHE: join(env.HF_HOME, 'b'),
    };
    await resolveModel(ID, {env: named});
    const tokens = asked.filter(({path}) => path.includes('/revision/')).map((one) => one.authorization);
    expect(tokens).toEqual(['Bearer hf_first', 'Bearer hf_second']);
  });
});

describe('a refusal says what to do', () => {
  test('of a model with pickled weights alone', async () => {
    const files = Object.fromEntries(Object.entries(FILES).filter(([name]) => !name.endsWith('.safetensors')));
    const {env, asked} = await startHub({files});
    const {error, text} = await failure(resolveModel(ID, {env}));
    expect(error).toBeInstanceOf(ModelError);
    expect(text).toMatch(/pickled \(pytorch_model\.bin\).*run code.*safetensors/);
    expect(asked.length).toBe(2);
  });

  test.each(['../x.json', 'a/../../x.json', '/etc/x.json', '..', 'a\\..\\x.json'])(
    'of a listing with a file called %j',
    async (name) => {
      const {env, asked} = await startHub({files: {...FILES, [name]: Buffer.from('x')}});
      const {error, text} = await failure(resolveModel(ID, {env}));
      expect(error).toBeInstanceOf(ModelError);
      expect(text).toContain('outside of its folder');
      expect(asked.length).toBe(2);
    },
  );

  test.each([
    [401, {'x-error-code': 'GatedRepo'}, /Ask for access at .*org\/tiny.*HF_TOKEN/],
    [403, {}, /for the account of this token \(403\).*Ask for access/],
    [401, {'x-error-code': 'RepoNotFound'}, /no such model or keeps it private \(401\).*HF_TOKEN/],
    [404, {'x-error-code': 'RepoNotFound'}, /nothing of that name is here, and .* no such model.*Correct the name/],
    [429, {'retry-after': '3600'}, /asked too often.*Try again in 3600 seconds/],
    [418, {}, /answers 418/],
  ])('of a hub that answers %i %j', async (status, headers, message) => {
    const {env, asked} = await startHub({instead: () => ({status, headers})});
    const {error, text} = await failure(resolveModel(ID, {env}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(text).toMatch(message);
    expect(asked.length).toBe(1);
  });

  test('of a revision that is not there', async () => {
    const {env} = await startHub();
    const {text} = await failure(resolveModel(`${ID}@v9`, {env}));
    expect(text).toMatch(/has no revision v9.*commits\/main/);
  });

  test('of what is no hub at all', async () => {
    const {env} = await startHub({instead: () => ({status: 200})});
    expect((await failure(resolveModel(ID, {env}))).text).toMatch(/not what a hub says.*HF_ENDPOINT/);
    expect((await failure(resolveModel(ID, {env: {...env, HF_ENDPOINT: 'ftp://x'}}))).text).toContain('HF_ENDPOINT');
  });

  test('without a network that may be used, naming what lacks', async () => {
    const {env, asked} = await startHub();
    const offline = {...env, TRANSFORMERS_OFFLINE: '1'};
    const {error, text} = await failure(resolveModel(ID, {env: offline}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(text).toMatch(/models--org--tiny does not hold it at revision main, and TRANSFORMERS_OFFLINE forbids/);
    expect(text).toContain('Run `downcycle pull org/tiny` without TRANSFORMERS_OFFLINE');
    expect(asked).toEqual([]);
    const {path} = await resolveModel(ID, {env});
    await rm(join(path, 'model.safetensors'));
    expect((await failure(resolveModel(ID, {env: offline}))).text).toContain('without model.safetensors');
    await symlink('../../blobs/gone', join(path, 'model.safetensors'));
    expect((await failure(resolveModel(ID, {env: offline}))).text).toContain('without model.safetensors');
  });

  test('of a token that cannot be sent, without showing it', async () => {
    const {env} = await startHub();
    const {error} = await failure(resolveModel(ID, {env: {...env, HF_TOKEN: `${TOKEN}\nx`}}));
    expect(error).toBeInstanceOf(EnvironmentError);
  });
});

describe('a passing failure', () => {
  test.each([
    [503, {}],
    [429, {'retry-after': '0'}],
  ])('%i %j is tried again', async (status, headers) => {
    const {env, asked} = await startHub({instead: (_, count) => (count === 1 ? {status, headers} : null)});
    expect((await resolveModel(ID, {env})).revision).toBe(COMMIT);
    expect(asked.filter(({path}) => path.includes('/revision/')).length).toBe(2);
  });

  test('of the CDN is answered by asking the hub anew', async () => {
    let refused = 0;
    const instead = ({host}: {host: string}) => (host === 'cdn' && refused++ === 0 ? {status: 403} : null);
    const {env, asked} = await startHub({instead});
    await resolveModel(ID, {env});
    expect(asked.filter(({path}) => path.endsWith('/model.safetensors') && path.includes('/resolve/')).length).toBe(2);
  });

  test('that stays is told, with the host and the reason', async () => {
    const {env} = await startHub({instead: () => ({status: 429, headers: {'retry-after': '0'}})});
    expect((await failure(resolveModel(ID, {env}))).text).toContain('asked too often');
    const {error, text} = await failure(resolveModel(ID, {env: {...env, HF_ENDPOINT: 'http://127.0.0.1:9'}}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(text).toMatch(/127\.0\.0\.1:9 could not be read \(bad port\)/);
  });

  test('ends when it is told to stop', async () => {
    const {env} = await startHub({instead: () => ({status: 503})});
    const {error} = await failure(resolveModel(ID, {env, signal: AbortSignal.timeout(50)}));
    expect((error as Error).name).toMatch(/AbortError|TimeoutError/);
  });
});
