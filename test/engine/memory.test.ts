import {mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';

const worker = new URL('./memory-worker.ts', import.meta.url);

describe.skipIf(missingTensorFlow !== null)('memory of a compiled step', () => {
  it('does not grow when a variable of 128 MB is updated in place', async () => {
    const {held, peak, first} = (await runChild(worker, ['update'])) as {held: number; peak: number; first: number};
    expect(first).toBe(31); // 1 → 3 → 7 → 15 → 31
    expect(held).toBeLessThan(32);
    expect(peak).toBeLessThan(32);
  });

  it('is less than half when its layers are computed again in the backward pass', async () => {
    const plain = await buffersOf('plain');
    const again = await buffersOf('recompute');
    expect(again.sum).toBeAllClose(plain.sum, {rtol: 1e-6});
    expect(plain.bytes).toBeGreaterThan(64 * 2 ** 20); // 16 layers of at least 4 MB
    expect(again.bytes).toBeLessThan(plain.bytes / 2); // the input of each layer, and one layer
  });
});

/** Bytes of all buffers of a step, as XLA's buffer assignment reports them. */
async function buffersOf(what: 'plain' | 'recompute'): Promise<{bytes: number; sum: number}> {
  const folder = mkdtempSync(join(tmpdir(), 'downcycle-xla-'));
  // What was kept of an earlier run would not be compiled, and say nothing.
  const env = {TF_XLA_FLAGS: '', XLA_FLAGS: `--xla_dump_to=${folder} --xla_dump_hlo_as_text`};
  const {sum} = (await runChild(worker, [what], env)) as {sum: number};
  const reports = readdirSync(folder).filter((name) => name.endsWith('memory-usage-report.txt'));
  const bytes = reports.map((name) =>
    Number(/Total bytes used: (\d+)/.exec(readFileSync(join(folder, name), 'utf8'))?.[1]),
  );
  rmSync(folder, {recursive: true});
  return {bytes: Math.max(...bytes), sum};
}
