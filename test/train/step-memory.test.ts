import {mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {entryInstructions} from '../../scripts/bench/hlo.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';

const worker = new URL('./step-worker.ts', import.meta.url);

describe.skipIf(missingTensorFlow !== null)('a compiled step (skipped without TensorFlow)', () => {
  it('overwrites parameters and both moments without copies of them', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'downcycle-xla-'));
    const env = {XLA_FLAGS: `--xla_dump_to=${folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=train_step`};
    const {numParameters} = (await runChild(worker, [], env)) as {numParameters: number};
    const name = readdirSync(folder).find((file) => file.endsWith('after_optimizations.txt'));
    const instructions = entryInstructions(readFileSync(join(folder, name!), 'utf8'));
    rmSync(folder, {recursive: true});
    expect(instructions.filter(({opcode}) => opcode === 'dot').length).toBeGreaterThan(10);
    expect(instructions.filter(({opcode}) => opcode === 'copy').length).toBeLessThan(numParameters / 4);
  });
});
