import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {SHARES} from '../export/cases.js';
import {mixture, moeLayer, writeMixture} from '../export/random-mixture.js';
import {cli, tempFolder} from './support.js';

describe('export', () => {
  test('says what it would do, does it, and says how far the result is from its source', async () => {
    const folder = await tempFolder();
    const model = await writeMixture(join(folder, 'moe'), mixture({routing: SHARES}));
    const planned = await cli('export', model, '--dry-run');
    expect(planned).toMatchObject({code: 0, stderr: ''});
    expect(planned.stdout).toMatch(/^qwen2_moe +exact +it gives/m);
    expect(planned.stdout).toMatch(
      /^glm4_moe +impossible +experts are weighed by softmax scores\. Choose qwen2_moe, mixtral or\s+granitemoeshared\./m,
    );
    const one = await cli('export', model, '--dry-run', '--to', 'deepseek_v3');
    expect(one.stdout).toMatch(/^deepseek_v3 +impossible/);
    expect(one.stdout).not.toContain('qwen2_moe');
    const out = join(folder, 'hf');
    const made = await cli('export', model, '--to', 'mixtral', '--out', out);
    expect(made.code).toBe(0);
    expect(made.stdout).toMatch(
      /^target +mixtral, stored as F32\nsize .*\(source: .*\)\nfidelity +exact\nmeasured +largest logit/,
    );
    expect(made.stdout.trimEnd().split('\n').at(-1)).toBe(out);
    expect((await readdir(out)).sort()).toEqual(['README.md', 'config.json', 'export.json', 'model.safetensors']);
  });

  test('refuses in one sentence with what to do, and leaves nothing behind', async () => {
    const folder = await tempFolder();
    const out = join(folder, 'hf');
    const cmoe = await writeMixture(join(folder, 'cmoe'), mixture({}, [moeLayer({router: 'representative'})]));
    const refused = await cli('export', cmoe, '--out', out);
    expect(refused).toMatchObject({code: 2, stdout: ''});
    expect(refused.stderr).toMatch(/error: No family of transformers can say .*cmoe: the router computes/);
    expect(refused.stderr).toMatch(/hint: Give it a linear router/);
    expect(await cli('export', cmoe)).toMatchObject({code: 2, stderr: expect.stringContaining('--dry-run') as string});
    const both = await cli('export', cmoe, '--dry-run', '--text', 'x.txt');
    expect(both).toMatchObject({code: 2, stderr: expect.stringContaining('cannot be used with') as string});
    expect(await cli('export', join(folder, 'none'), '--out', out)).toMatchObject({code: 5});
    expect(await readdir(folder)).toEqual(['cmoe']);
  });
});
