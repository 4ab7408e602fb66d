// Readers and terminals that go away under a command: only the system can say so, no test by itself.
import {spawn, spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, test, vi} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import {DOWNCYCLE} from '../support/program.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';
import {tempFolder, writeConfig} from './support.js';

vi.setConfig({testTimeout: 120_000}); // a new process, on a machine that may be busy

const hasScript = process.platform === 'linux' && spawnSync('script', ['--version']).status === 0;

const quoted = (words: readonly string[]): string => words.map((word) => `'${word}'`).join(' ');

describe.skipIf(!hasScript)('a run on a terminal (skipped where there is no `script` to make one)', () => {
  test('that goes away saves the step under way and ends', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const config = await writeConfig(folder, TEXT);
    const out = join(folder, 'run');
    const options = ['--out', out, '--set', 'train.steps=1000000', '--set', 'train.validation.every=1000000'];
    const terminal = spawn('script', ['-qec', quoted([...DOWNCYCLE, 'train', config, ...options]), '/dev/null'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const records = () => readRunLog(join(out, 'log.jsonl'));
    await vi.waitFor(
      async () => expect((await records()).filter(({kind}) => kind === 'step').length).toBeGreaterThan(2),
      {
        timeout: 60_000,
        interval: 200,
      },
    );
    terminal.kill('SIGKILL');
    await vi.waitFor(() => expect(existsSync(join(folder, '.run.lock'))).toBe(false), {timeout: 30_000, interval: 100});
    const last = (await records()).at(-1)!;
    expect(last).toMatchObject({kind: 'end', reason: 'interrupted'});
    expect((await latestCheckpoint(out))?.trainer.step).toBe(last.kind === 'end' ? last.step : 0);
  });
});

test.skipIf(!existsSync('/dev/full'))('output that cannot be written is an error', () => {
  const {status, stderr} = spawnSync('bash', ['-c', `${quoted([...DOWNCYCLE, '--help'])} > /dev/full`], {
    encoding: 'utf8',
  });
  expect(stderr).toMatch(/^error: what was to be printed could not be written: .*ENOSPC/);
  expect(status).toBe(6);
});

test('a reader that goes away ends no work', async () => {
  const folder = await tempFolder();
  await writeModel(join(folder, 'model'), DENSE);
  const config = await writeConfig(folder, TEXT);
  const estimate = [...DOWNCYCLE, 'train', config, '--estimate', '--set', 'train.batch.sequences=100000000'];
  const {status, stderr} = spawnSync('bash', ['-o', 'pipefail', '-c', `${quoted(estimate)} | true`], {
    encoding: 'utf8',
  });
  expect(stderr).toMatch(/^error: The run needs/m); // which is looked at once the table is printed
  expect(status).toBe(6);
});
