// Reads shuffled rows of shards through the loader, each shard in a process of its own: npm run bench:loader
import {execFile} from 'node:child_process';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {promisify} from 'node:util';
import {createLoader} from '../../src/data/loader.js';
import {openTokenShard} from '../../src/format/token-shard.js';
import {createTokenShardWriter} from '../../src/format/token-shard-writer.js';
import {withPeakMemory} from '../../src/util/peak-memory.js';
import {createRng} from '../../src/util/rng.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {runScript} from './run-script.js';

const WIDTHS = [513, 2049];
/** Tokens of a shard; what memory does between the two says whether it depends on the size of the data. */
const SIZES = [8 * 2 ** 20, 64 * 2 ** 20];
const VOCABULARY = 49_152;
const SEQUENCES = 16;
const SECONDS = 4;

interface Reading {
  readonly tokensPerSecond: number;
  readonly peakBytes: number;
}

async function writeShard(path: string, width: number, tokens: number): Promise<void> {
  const rng = createRng(1, 'bench tokens');
  const row = Int32Array.from({length: width}, () => rng.int(VOCABULARY));
  const description = {tokenizerSha256: '0'.repeat(64), sequenceLength: width - 1, source: 'bench', licence: 'none'};
  const writer = await createTokenShardWriter(path, description);
  for (let i = 0; i < tokens / width; i++) await writer.append({tokens: row});
  await writer.finish(1);
}

async function readShard(path: string): Promise<Reading> {
  const shard = await openTokenShard(path, {vocabSize: VOCABULARY});
  const loader = createLoader({shards: [{name: 'bench', shard, weight: 1}], sequences: SEQUENCES, seed: 1});
  const {result, seconds, peakBytes} = await withPeakMemory(async () => {
    let tokens = 0;
    for (const end = performance.now() + 1000 * SECONDS; performance.now() < end; ) {
      tokens += (await loader.next()).tokens.length;
    }
    return tokens;
  });
  await shard.close();
  return {tokensPerSecond: result / seconds, peakBytes};
}

/** Another process, so that memory is that of reading alone. */
async function readElsewhere(path: string): Promise<Reading> {
  const {stdout} = await promisify(execFile)(process.execPath, ['--import', 'tsx', import.meta.filename, path]);
  return JSON.parse(stdout) as Reading;
}

async function main(): Promise<void> {
  const [path] = process.argv.slice(2);
  if (path !== undefined) return console.log(JSON.stringify(await readShard(path)));
  const machine = await describeMachine();
  console.log([machineLine(machine, []), busyWarning(machine)].filter(Boolean).join('\n'));
  console.log('\n| row | tokens of the shard | tokens read a second | peak memory |\n|---|---|---|---|');
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-bench-'));
  try {
    for (const width of WIDTHS) {
      for (const tokens of SIZES) {
        const shard = join(folder, `${width}-${tokens}.arrow`);
        await writeShard(shard, width, tokens);
        const {tokensPerSecond, peakBytes} = await readElsewhere(shard);
        await rm(shard);
        const cells = [width, `${tokens / 2 ** 20} Mi`, `${(tokensPerSecond / 1e6).toFixed(1)} M`];
        console.log(`| ${[...cells, `${(peakBytes / 2 ** 20).toFixed(0)} MiB`].join(' | ')} |`);
      }
    }
  } finally {
    await rm(folder, {recursive: true});
  }
}

await runScript(main);
