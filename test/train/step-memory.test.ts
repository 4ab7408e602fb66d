import {mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {entryInstructions, type Instruction} from '../../scripts/bench/hlo.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';

const worker = new URL('./step-worker.ts', import.meta.url);

/** The program XLA made of a step, and the shapes of its parameters. */
async function compiledStep(kind: string): Promise<{program: Instruction[]; shapes: number[][]}> {
  const folder = mkdtempSync(join(tmpdir(), 'downcycle-xla-'));
  try {
    const dump = `--xla_dump_to=${folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=train_step`;
    const env = {TF_XLA_FLAGS: '', XLA_FLAGS: dump}; // a program kept from an earlier run would not be dumped
    const {shapes} = (await runChild(worker, [kind, 'at-once'], env)) as {shapes: number[][]};
    const name = readdirSync(folder).find((file) => file.endsWith('after_optimizations.txt'));
    return {program: entryInstructions(readFileSync(join(folder, name!), 'utf8')), shapes};
  } finally {
    rmSync(folder, {recursive: true});
  }
}

describe.skipIf(missingTensorFlow !== null)('a compiled step (skipped without TensorFlow)', () => {
  it.each(['dense', 'routed'])('overwrites parameters and both moments without copies of them: %s', async (kind) => {
    const {program, shapes} = await compiledStep(kind);
    expect(program.filter(({opcode}) => opcode === 'dot').length).toBeGreaterThan(10);
    const types = new Set(shapes.filter(({length}) => length > 1).map((shape) => `f32[${shape.join()}]`));
    const copies = program.filter(({opcode, type}) => opcode === 'copy' && types.has(type.split('{')[0]!));
    expect(copies.map(({type}) => type)).toEqual([]);
  });

  it.each(['at-once', 'accumulated'])(
    'writes no array as large as its largest weights into its programs: %s',
    async (passes) => {
      const {constants, shapes} = (await runChild(worker, ['routed', passes])) as Record<string, number[][]>;
      const sizes = shapes!.filter(({length}) => length > 1).map((shape) => shape.reduce((a, b) => a * b));
      expect(constants!.length).toBeGreaterThan(10);
      expect(Math.max(...constants!.flat())).toBeLessThan(Math.max(...sizes));
    },
  );
});
