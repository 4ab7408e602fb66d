import {execFileSync, spawnSync} from 'node:child_process';
import {describe, expect, it} from 'vitest';
import {findPackage} from '../../scripts/bench/python.js';
import {checkSameTraining} from '../../scripts/bench/same-training.js';
import {openSide, ourCommand, type SideCommand, torchCommand} from '../../scripts/bench/side.js';
import {missingTensorFlow} from '../support/engines.js';

const torch = await findPackage('torch', process.env);
const hasPython = spawnSync('python3', ['--version']).status === 0;
const script = (code: string): SideCommand => ({
  ...{name: 'other', command: process.execPath, args: ['-e', code], isOurs: false, compiles: false},
});

describe('a side', () => {
  it('answers requests in order, on one line each', async () => {
    const side = openSide(
      script(`require('readline').createInterface({input: process.stdin}).on('line', (line) =>
      console.log(JSON.stringify({kind: 'matmul', ms: {eager: [JSON.parse(line).size]}})))`),
    );
    const ask = (size: number) => side.ask({kind: 'matmul', size, repeats: 1});
    expect([await ask(1), await ask(2)].map(({ms}) => ms.eager)).toEqual([[1], [2]]);
    await side.close();
  });

  it('that dies gives an error with the end of what it printed', async () => {
    const side = openSide(script('console.error("no memory left"); process.exit(3)'));
    await expect(side.ask({kind: 'steps', count: 1})).rejects.toThrow(
      'other gave no answer to "steps". It ended with exit code 3.\nno memory left',
    );
    await side.close();
  });

  it('whose program does not exist gives an error that names it', async () => {
    const side = openSide({...script(''), command: '/no/such/program'});
    await expect(side.ask({kind: 'steps', count: 1})).rejects.toThrow('/no/such/program');
    await side.close();
  });
});

describe.skipIf(!hasPython)("PyTorch's side", () => {
  it.each(['eager', 'transformers'] as const)('is Python (%s)', (way) => {
    const [path = ''] = torchCommand('python3', way).args;
    execFileSync('python3', ['-c', 'import ast, sys; ast.parse(open(sys.argv[1]).read())', path]);
  });
});

describe('findPackage', () => {
  it('says in one line that a Python has no torch, and which one it asked', async () => {
    const found = await findPackage('torch', {DOWNCYCLE_BENCH_PYTHON: '/no/such/python'});
    expect(found).toMatchObject({
      kind: 'missing',
      reason: expect.stringMatching(/^Nothing is compared: \/no\/such\/python cannot import torch\. .*$/) as string,
    });
  });
});

const absent = torch.kind === 'missing' ? torch.reason : missingTensorFlow;
describe.skipIf(absent !== null)(`both sides${absent ? ` (skipped: ${absent})` : ''}`, () => {
  it.each([
    {way: 'eager', kind: 'dense', finetune: 'full'},
    {way: 'eager', kind: 'moe', finetune: 'full'},
    {way: 'eager', kind: 'moe', finetune: 'lora'},
    {way: 'eager', kind: 'moe', finetune: 'routers'},
    {way: 'transformers', kind: 'moe', finetune: 'full'},
    {way: 'transformers', kind: 'moe', finetune: 'routers'},
  ] as const)('train a $kind model the same way ($finetune, $way)', {timeout: 300_000}, async ({way, ...what}) => {
    const python = torch.kind === 'found' ? torch.python : '';
    expect(
      await checkSameTraining(ourCommand(), torchCommand(python, way), what, {
        threads: 1,
        device: 'cpu',
        precision: 'float32',
      }),
    ).toBeLessThan(1e-4);
  });
});
