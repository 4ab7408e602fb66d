import {readdir, readFile, stat, writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {describe, expect, onTestFinished, test, vi} from 'vitest';
import {COMMIT, ID, startHub, TOKEN} from '../hub/server.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';
import {cli, type Ended, spawnCli, tempFolder, writeConfig} from './support.js';

/** A tiny model on a hub of its own, and a folder to work in. */
async function workplace() {
  const folder = await tempFolder();
  await writeModel(join(folder, 'source'), DENSE);
  const names = await readdir(join(folder, 'source'));
  const read = async (name: string) => [name, await readFile(join(folder, 'source', name))] as const;
  const hub = await startHub({files: Object.fromEntries(await Promise.all(names.map(read)))});
  return {folder, hub, snapshot: join(hub.env.HF_HOME, 'hub/models--org--tiny/snapshots', COMMIT)};
}

/** Runs a command in this process, which works in a folder and knows a hub until the test is over. */
async function run(
  {folder, hub}: Awaited<ReturnType<typeof workplace>>,
  env: NodeJS.ProcessEnv,
  ...args: readonly string[]
): Promise<Ended> {
  const home = process.cwd();
  onTestFinished(() => {
    vi.unstubAllEnvs();
    process.chdir(home);
  });
  for (const [name, value] of Object.entries({HF_HUB_OFFLINE: '', ...hub.env, ...env})) vi.stubEnv(name, value);
  process.chdir(folder);
  const ended = await cli(...args);
  process.chdir(home);
  expect(`${ended.stdout}${ended.stderr}`).not.toContain(TOKEN);
  return ended;
}

const OFFLINE = {HF_HUB_OFFLINE: '1'};

describe('a model on the hub', () => {
  test('is pulled once, and inspected without the hub, by processes of their own', async () => {
    const {folder, hub, snapshot} = await workplace();
    const pulled = await spawnCli(['pull', ID], {cwd: folder, env: hub.env});
    expect(pulled).toMatchObject({code: 0});
    expect(pulled.stderr).toMatch(/org\/tiny {2}\S+ {2}.*B of .*B/);
    expect(pulled.stdout).toMatch(
      new RegExp(`^model +org/tiny\\ncommit +${COMMIT}\\nsize +\\S+B in \\d files\\n${snapshot}\\n$`),
    );
    const before = hub.asked.length;
    const inspected = await spawnCli(['inspect', ID], {cwd: folder, env: {...hub.env, ...OFFLINE}});
    expect(inspected).toMatchObject({code: 0, stderr: ''});
    expect(inspected.stdout).toContain('llama, 2 layers, width 32');
    expect(hub.asked.length).toBe(before);
    expect(`${pulled.stdout}${pulled.stderr}${inspected.stdout}`).not.toContain(TOKEN);
  });

  test('is downloaded when it is inspected, and copied out of the cache', async () => {
    const place = await workplace();
    expect((await run(place, {}, 'inspect', ID)).stdout).toContain('tokenizer  274 ids');
    const copied = await run(place, OFFLINE, 'pull', `${ID}@main`, '--out', 'copy');
    expect(copied).toMatchObject({code: 0, stderr: ''});
    expect(copied.stdout).toMatch(/\ncopy\n$/);
    expect((await stat(join(place.folder, 'copy', 'model.safetensors'))).size).toBeGreaterThan(1000);
    const again = await run(place, OFFLINE, 'pull', ID, '--out', 'copy');
    expect(again).toMatchObject({code: 6, stdout: ''});
    expect(again.stderr).toContain('copy already exists');
  });

  test('is converted, its commit recorded; trained, and gone on with offline', async () => {
    const place = await workplace();
    const {folder} = place;
    const arms = `arms:\n  a: {method: sparse-upcycle, experts: 2, topK: 1, from: ${ID}}\n`;
    const config = await writeConfig(folder, TEXT, arms);
    await writeFile(config, (await readFile(config, 'utf8')).replace(join(folder, 'model'), ID));
    expect(await run(place, {}, 'convert', config, '--out', 'moe')).toMatchObject({code: 0});
    const origin = JSON.parse(await readFile(join(folder, 'moe', 'downcycle.json'), 'utf8')) as unknown;
    expect(origin).toMatchObject({source: {revision: COMMIT}});
    const train = ['train', config, '--out', 'run', '--set', 'train.steps=2'];
    expect(await run(place, {}, ...train)).toMatchObject({code: 0});
    expect(await run(place, OFFLINE, ...train, '--resume')).toMatchObject({code: 0});
    expect(await readFile(join(folder, 'run', 'config.yaml'), 'utf8')).toContain(`snapshots/${COMMIT}`);
  });

  test('that is not there is told with the key that names it', async () => {
    const place = await workplace();
    const config = await writeConfig(place.folder, TEXT);
    const {code, stderr} = await run(place, {}, 'prepare', config, '--out', 'x', '--set', 'model=org/tinny');
    expect(stderr).toMatch(
      /^error: --set model=org\/tinny: model: org\/tinny: nothing of that name is here, and 127\.0\.0\.1:\d+ has no such model.*\nhint: Correct the name or the path; /,
    );
    expect(code).toBe(6);
  });

  test('cannot be pulled where a folder has its name', async () => {
    const {code, stderr} = await run(await workplace(), {}, 'pull', resolve('test'));
    expect({code, stderr}).toMatchObject({code: 2, stderr: expect.stringContaining('is here already') as string});
  });
});
