// A hub on this machine: its API, files of its own, and a second server that large files are redirected to.
import {createHash} from 'node:crypto';
import {mkdtemp, rm} from 'node:fs/promises';
import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {onTestFinished} from 'vitest';

export const ID = 'org/tiny';
export const COMMIT = 'c0ffee'.repeat(7).slice(0, 40);
export const TOKEN = 'hf_ThisIsSecret123';

/** What was asked of one of the two. */
export interface Asked {
  readonly host: 'hub' | 'cdn';
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  /** Bytes that were sent. */
  sent: number;
}

/** An answer in place of the usual one. */
export interface Instead {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface HubOptions {
  readonly id?: string;
  readonly files?: Readonly<Record<string, Uint8Array>>;
  /** What to answer in its place; called for every request. */
  readonly instead?: (asked: Asked, count: number) => Instead | null;
  /** The first answer of the CDN breaks off after so many bytes. */
  readonly cutAfter?: number;
  /** What the CDN sends, if not what is listed. */
  readonly sent?: (bytes: Uint8Array) => Uint8Array;
}

export interface TestHub {
  readonly url: string;
  readonly asked: Asked[];
  /** An environment with this hub and an empty cache. */
  readonly env: NodeJS.ProcessEnv & {readonly HF_HOME: string};
}

const random = createHash('sha512').update('weights').digest();
export const WEIGHTS = Buffer.concat(
  Array.from({length: 4096}, (_, i) => Buffer.concat([random, Buffer.from([i % 256])])),
);
/** Enough for the cache; nothing reads the weights. */
export const FILES: Readonly<Record<string, Uint8Array>> = {
  'config.json': Buffer.from('{"model_type": "llama"}'),
  'tokenizer.json': Buffer.from('{}'),
  'model.safetensors': WEIGHTS,
  'README.md': Buffer.from('# Tiny'),
  'pytorch_model.bin': Buffer.from('pickle'),
  'logo.png': Buffer.from('picture'),
};

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function gitHash(bytes: Uint8Array): string {
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

/** Starts both servers until the test is over. */
export async function startHub(options: HubOptions = {}): Promise<TestHub> {
  const {id = ID, files = FILES} = options;
  const asked: Asked[] = [];
  const cuts = {left: options.cutAfter === undefined ? 0 : 1};
  const cdn = await listen((request, response) => {
    const one = note('cdn', request, asked);
    if (divert(one, response, asked, options)) return;
    const bytes = files[decodeURIComponent(one.path.slice(1))] ?? new Uint8Array();
    const cut = cuts.left-- > 0 ? options.cutAfter : undefined;
    sendRange(one, response, options.sent?.(bytes) ?? bytes, cut);
  });
  const url = await listen((request, response) => {
    const one = note('hub', request, asked);
    if (!divert(one, response, asked, options)) answer(one, response, {id, files, cdn});
  });
  const HF_HOME = await mkdtemp(join(tmpdir(), 'downcycle-hub-'));
  onTestFinished(() => rm(HF_HOME, {recursive: true, force: true}));
  return {url, asked, env: {HF_ENDPOINT: url, HF_HOME, HF_TOKEN: TOKEN}};
}

function note(host: Asked['host'], {url = '', headers}: IncomingMessage, asked: Asked[]): Asked {
  const one: Asked = {host, path: url, authorization: headers.authorization, range: headers.range, sent: 0};
  asked.push(one);
  return one;
}

function divert(one: Asked, response: ServerResponse, asked: readonly Asked[], {instead}: HubOptions): boolean {
  const other = instead?.(one, asked.length);
  if (!other) return false;
  response.writeHead(other.status, other.headers).end();
  return true;
}

function answer(
  {path}: Asked,
  response: ServerResponse,
  {id, files, cdn}: {id: string; files: Readonly<Record<string, Uint8Array>>; cdn: string},
): void {
  const missing = (code: string): ServerResponse => response.writeHead(404, {'x-error-code': code}).end();
  const revision = `/api/models/${id}/revision/`;
  const [, name = ''] = /^\/.+\/resolve\/[^/]+\/(.+)$/.exec(path) ?? [];
  const bytes = files[decodeURIComponent(name)];
  if (path === `${revision}main`) response.end(JSON.stringify({sha: COMMIT}));
  else if (path.startsWith(revision)) missing('RevisionNotFound');
  else if (path === `/api/models/${id}/tree/${COMMIT}`) response.end(JSON.stringify(tree(files)));
  else if (bytes) sendFile(name, bytes, response, cdn);
  else missing('RepoNotFound');
}

function sendFile(name: string, bytes: Uint8Array, response: ServerResponse, cdn: string): void {
  const headers = {etag: `"${gitHash(bytes)}"`, 'x-repo-commit': COMMIT};
  if (!isLarge(name)) response.writeHead(200, headers).end(bytes);
  else {
    const large = {location: `${cdn}/${name}`, 'x-linked-etag': `"${sha256(bytes)}"`};
    response.writeHead(302, {...headers, ...large}).end();
  }
}

function isLarge(name: string): boolean {
  return name.endsWith('.safetensors');
}

function tree(files: Readonly<Record<string, Uint8Array>>): unknown[] {
  const listed = Object.entries(files).map(([path, bytes]) => ({
    type: 'file',
    path,
    size: bytes.length,
    oid: gitHash(bytes),
    ...(isLarge(path) && {lfs: {oid: sha256(bytes), size: bytes.length, pointerSize: 130}}),
  }));
  return [...listed, {type: 'directory', path: 'onnx', size: 0, oid: 'a'.repeat(40)}];
}

function sendRange(one: Asked, response: ServerResponse, bytes: Uint8Array, cut: number | undefined): void {
  const start = Number(/^bytes=(\d+)-$/.exec(one.range ?? '')?.[1] ?? 0);
  const rest = bytes.subarray(start);
  response.writeHead(one.range ? 206 : 200, {
    'content-length': rest.length,
    ...(one.range && {'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`}),
  });
  one.sent = cut ?? rest.length;
  if (cut === undefined) response.end(rest);
  // After what was sent has left: a connection that is torn down takes it along.
  else response.write(rest.subarray(0, cut), () => setTimeout(() => response.destroy(), 50));
}

async function listen(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server: Server = createServer(handle);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const {port} = server.address() as AddressInfo;
  return `http://127.0.0.1:${port}`;
}
