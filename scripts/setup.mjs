#!/usr/bin/env node
// Makes a fresh checkout runnable: packages, build, TensorFlow's libraries. Plain Node, since it runs before node_modules
// exists. Each stage looks at what is there and does only what lacks, so a rerun after an interruption completes it.
import {spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import {chmodSync, existsSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

const USAGE = `Usage: node scripts/setup.mjs [options]

Installs the packages, builds, and fetches TensorFlow's libraries into the user's cache, each only if needed.

  --cuda         fetch the TensorFlow build for NVIDIA GPUs (3.4 GB, 5.5 GB on the disk)
  --skip-engine  leave TensorFlow out: the slower wasm engine runs
  --strict       fail if TensorFlow cannot be had, instead of going on with the wasm engine
  --help         show this`;

const OLDEST_NODE = 20;
const EXIT = {usage: 2, environment: 6, interrupted: 130};

/** What is wrong, in one line a person can act on. */
class SetupError extends Error {
  constructor(message, exitCode = EXIT.environment) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The flags, or a SetupError that names the unknown one. */
function parseFlags(args) {
  const known = ['--cuda', '--skip-engine', '--strict', '--help'];
  const unknown = args.find((arg) => !known.includes(arg));
  if (unknown) throw new SetupError(`Unknown option ${unknown}. Options: ${known.join(', ')}.`, EXIT.usage);
  const [cuda, skipEngine, strict, help] = known.map((flag) => args.includes(flag));
  return {cuda, skipEngine, strict, help};
}

/** Throws unless the running Node is new enough. */
function checkNode(version) {
  if (Number.parseInt(version, 10) >= OLDEST_NODE) return;
  throw new SetupError(`downcycle needs Node ${OLDEST_NODE} or newer; this is Node ${version}. Install a newer Node.`);
}

/**
 * How many packages of package-lock.json are missing from node_modules or there in another version. npm keeps its own list
 * of what it installed and writes it last, so an interrupted install counts as missing; packages for other machines do not.
 */
function countMissing(root) {
  const wanted = readJson(join(root, 'package-lock.json'))?.packages ?? {};
  const present = readJson(join(root, 'node_modules', '.package-lock.json'))?.packages ?? {};
  const isMissing = ([path, {version, integrity, optional}]) =>
    path !== '' && !optional && (present[path]?.version !== version || present[path]?.integrity !== integrity);
  return Object.entries(wanted).filter(isMissing).length;
}

/** SHA-256 of everything the build reads: sources, compiler settings, and the lock file for the compiler's version. */
function sourceHash(root) {
  const hash = createHash('sha256');
  const sources = readdirSync(join(root, 'src'), {recursive: true}).filter((name) => name.endsWith('.ts'));
  const settings = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];
  for (const path of [...settings, ...sources.sort().map((name) => join('src', name))]) {
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** One line a stage: rewritten in place on a terminal, else printed when it begins and when it ends. */
function createProgress(stream) {
  const print = (stage, text, end) => {
    const line = `  ${stage.padEnd(11)}${text}`;
    stream.write(stream.isTTY ? `\r\x1b[2K${line.slice(0, (stream.columns ?? 80) - 1)}${end}` : `${line}\n`);
  };
  let lastPlain = '';
  return {
    /** `plain` is what a log shows; left out, the update is for terminals only. */
    update(stage, text, plain) {
      if (stream.isTTY) return print(stage, text, '');
      if (!plain || plain === lastPlain) return;
      lastPlain = plain;
      print(stage, plain, '');
    },
    done: (stage, text) => print(stage, text, '\n'),
  };
}

/** What a terminal and what a log shows for an event of the fetch. */
function fetchLine(event) {
  switch (event.stage) {
    case 'wait': {
      const text = `waiting for process ${event.holder}, which fetches it already`;
      return [text, text];
    }
    case 'download': {
      const {wheel, megabytes, of} = event;
      return [`downloading ${wheel}: ${Math.round(megabytes)} of ${of} MB`, `downloading ${wheel} (${of} MB in all)`];
    }
    case 'unpack': {
      const {wheel, megabytes} = event;
      return [`unpacking and checking ${wheel}: ${Math.round(megabytes)} MB`, `unpacking and checking ${wheel}`];
    }
  }
}

async function main(args) {
  const flags = parseFlags(args);
  if (flags.help) return console.log(USAGE);
  checkNode(process.versions.node);
  const root = join(import.meta.dirname ?? fileURLToPath(new URL('.', import.meta.url)), '..');
  const progress = createProgress(process.stdout);
  // An installed package has neither sources nor lock file: npm has done the first two stages.
  if (existsSync(join(root, 'src')) && existsSync(join(root, 'package-lock.json'))) {
    await installPackages(root, progress);
    await build(root, progress);
  }
  if (!flags.skipEngine) await provideEngine(root, flags, progress);
}

async function installPackages(root, progress) {
  const missing = countMissing(root);
  if (missing === 0) return;
  const args = ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const {code, output, seconds} = await run('npm', args, root, (elapsed) =>
    progress.update('packages', `installing ${missing} packages, ${elapsed} s`, `installing ${missing} packages`),
  );
  if (code !== 0) throw new SetupError(`npm ci failed: ${firstLines(output)}`);
  progress.done('packages', `${missing} installed in ${seconds} s`);
}

async function build(root, progress) {
  const stamp = join(root, 'dist', '.source-hash');
  const began = new Date();
  const hash = sourceHash(root);
  if (readText(stamp) === hash) return;
  rmSync(join(root, 'dist'), {recursive: true, force: true}); // files of sources that are gone must not stay
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const {code, output, seconds} = await run(
    process.execPath,
    [compiler, '-p', 'tsconfig.build.json'],
    root,
    (elapsed) => progress.update('build', `compiling, ${elapsed} s`, 'compiling'),
  );
  if (code !== 0) throw new SetupError(`The build failed: ${firstLines(output)}`);
  chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755); // npx runs it by a link, and sets this only when it makes that
  writeFileSync(stamp, hash);
  utimesSync(stamp, began, began); // what was saved since is not in the build
  progress.done('build', `compiled in ${seconds} s`);
}

async function provideEngine(root, {cuda, strict}, progress) {
  const load = (name) => import(pathToFileURL(join(root, 'dist', 'engine', 'library', name)).href);
  const [{locateTensorFlow}, {fetchTensorFlow}] = await Promise.all([load('locate.js'), load('fetch.js')]);
  const lookup = await locateTensorFlow({device: cuda ? 'cuda' : 'auto'});
  if (lookup.kind === 'found' && !(cuda && lookup.location.variant === 'cpu')) {
    for (const warning of lookup.location.warnings) progress.done('engine', warning);
    return;
  }
  const onProgress = (event) => progress.update('engine', ...fetchLine(event));
  try {
    const folder = await fetchTensorFlow({variant: cuda ? 'cuda' : 'cpu', onProgress});
    progress.done('engine', `TensorFlow is in ${folder}`);
  } catch (error) {
    if (cuda || strict || error?.exitCode === undefined) throw error;
    progress.done('engine', `using the slower wasm engine: ${describe(error)}`);
  }
}

/** Runs a command to its end without showing its output; `onSecond` is called with the seconds gone by. */
function run(command, args, cwd, onSecond) {
  const begin = performance.now();
  const elapsed = () => Math.round((performance.now() - begin) / 1000);
  return new Promise((resolve, reject) => {
    const shell = process.platform === 'win32' && command === 'npm'; // npm is a script there
    const child = spawn(command, args, {cwd, shell, stdio: ['ignore', 'pipe', 'pipe']});
    const kill = () => child.kill();
    process.once('exit', kill);
    const clock = setInterval(() => onSecond(elapsed()), 1000);
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text) => (output += text));
    onSecond(0);
    child.once('error', (error) => reject(new SetupError(`${command} cannot be started: ${error.message}`)));
    child.once('close', (code) => resolve({code, output: output.trim(), seconds: elapsed()}));
    child.once('close', () => process.off('exit', kill));
    child.once('exit', () => clearInterval(clock));
  });
}

function firstLines(output) {
  return output.split('\n').slice(0, 10).join('\n');
}

function describe(error) {
  return [error.message, error.hint].filter(Boolean).join(' ');
}

function readJson(path) {
  const text = readText(path);
  return text === null ? null : JSON.parse(text);
}

function readText(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : null;
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    process.stderr.write('\nSet-up was interrupted; run it again to complete it.\n');
    process.exit(EXIT.interrupted); // ends npm, the compiler or pip too
  });
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error?.exitCode === undefined) throw error;
  process.stderr.write(`${describe(error)}\n`);
  process.exitCode = error.exitCode;
}
