import {describe, expect, test} from 'vitest';
import {diagnose, type MachineFacts} from '../../src/engine/doctor.js';
import {gatherFacts} from '../../src/engine/doctor-facts.js';

const CPU: MachineFacts['engine'] = {
  kind: 'tensorflow',
  device: 'cpu',
  version: '2.21.0',
  precision: 'float32',
  library: {folder: '/cache/tensorflow', source: 'cache', variant: 'cpu'},
  notes: [],
};
const WASM = {
  ...CPU,
  kind: 'wasm',
  device: 'wasm',
  version: '4.22.0',
  library: null,
  notes: ['TensorFlow was not found.'],
} as const;
const NO_GPU = {hasDriver: false, cards: [], missingLibraries: null};
const HEALTHY: MachineFacts = {
  engine: CPU,
  gpu: NO_GPU,
  unsupported: null,
  versions: {node: '20.20.2', npm: '11.0.0', python: '3.11.7', pip: '23.2.1'},
  system: {platform: 'linux x64', cores: 2, memory: {free: 16e9, total: 25e9}},
  disks: [{path: '/here', free: 80e9, total: 270e9}],
};

/** The findings of a topic on a machine that differs from a healthy one. */
function about(topic: string, changes: Partial<MachineFacts> = {}) {
  return diagnose({...HEALTHY, ...changes}).filter((finding) => finding.topic === topic);
}

describe('diagnose', () => {
  test('finds nothing wrong with a healthy machine', () => {
    expect(diagnose(HEALTHY).filter(({state, todo}) => state !== 'good' || todo !== null)).toEqual([]);
  });

  test('says which TensorFlow runs, and how it was found', () => {
    expect(about('engine')[0]?.text).toBe(
      'TensorFlow 2.21.0 on cpu, float32, from /cache/tensorflow (fetched by set-up)',
    );
  });

  test('says why wasm runs and what to type', () => {
    const [engine, why] = about('engine', {engine: WASM});
    expect(engine).toMatchObject({state: 'warning', todo: 'node scripts/setup.mjs'});
    expect(why?.text).toBe('TensorFlow was not found.');
  });

  test('names the machine where TensorFlow cannot run on it', () => {
    const [, why] = about('engine', {engine: WASM, unsupported: 'this is darwin.'});
    expect(why?.text).toBe('this is darwin.');
  });

  test('gives the hint of an engine that did not start', () => {
    const engine = {kind: 'failed', error: 'no usable GPU', todo: 'set engine.device to cpu'} as const;
    expect(about('engine', {engine})).toEqual([
      {topic: 'engine', state: 'bad', text: 'no usable GPU', todo: 'set engine.device to cpu'},
    ]);
  });

  const card = {hasDriver: true, cards: ['NVIDIA H200'], missingLibraries: null};
  const cuda = {...CPU, device: 'cuda'} as const;

  test.each([
    ['a GPU in use', {engine: cuda, gpu: {...card, missingLibraries: []}}, 'good', null],
    ['no driver and no CUDA build', {}, 'good', null],
    ['the CUDA build without a driver', {gpu: {...NO_GPU, missingLibraries: []}}, 'warning', /--gpus all/],
    ['a card without the CUDA build', {gpu: card}, 'bad', /setup\.mjs --cuda/],
    ['a CUDA build that lacks a library', {gpu: {...card, missingLibraries: ['nvidia-cudnn-cu12']}}, 'bad', /--cuda/],
    ['a card that does not compute', {gpu: {...card, missingLibraries: []}}, 'bad', /nvidia-smi/],
    ['a driver without a card', {gpu: {...card, cards: [], missingLibraries: []}}, 'bad', /nvidia-smi/],
    ['a card where the CUDA build cannot run', {gpu: card, unsupported: 'this machine is arm64.'}, 'bad', null],
  ] as const)('tells %s', (_, changes, state, todo) => {
    const [gpu] = about('gpu', changes as Partial<MachineFacts>);
    expect(gpu?.state).toBe(state);
    if (todo === null) expect(gpu?.todo).toBeNull();
    else expect(gpu?.todo).toMatch(todo);
  });

  test('names the libraries that are missing', () => {
    const gpu = {...card, missingLibraries: ['nvidia-cudnn-cu12', 'nvidia-nccl-cu12']};
    expect(about('gpu', {gpu})[0]?.text).toContain('lacks nvidia-cudnn-cu12, nvidia-nccl-cu12 beside it');
  });

  test('asks for Python with pip only where TensorFlow is still to be fetched', () => {
    const none = {...HEALTHY.versions, python: null, pip: null};
    expect(about('python', {versions: none})[0]?.state).toBe('good');
    expect(about('python', {versions: none, engine: WASM})[0]?.todo).toBe('install Python 3 with pip');
    expect(about('python', {versions: {...none, python: '3.11'}, engine: WASM})[0]?.todo).toContain('python3-pip');
  });

  test('warns of little memory and little disk', () => {
    expect(about('machine', {system: {...HEALTHY.system, memory: {free: 1e9, total: 2e9}}})[0]?.state).toBe('warning');
    expect(about('disk', {disks: [{path: '/here', free: 1e9, total: 2e9}]})[0]?.todo).toBe('free some space');
  });
});

describe('gatherFacts', () => {
  test('measures this machine', async () => {
    const facts = await gatherFacts({device: 'wasm'});
    expect(facts.engine).toMatchObject({kind: 'wasm', device: 'wasm', library: null});
    expect(facts.versions.node).toBe(process.versions.node);
    expect(facts.system.memory.total).toBeGreaterThan(facts.system.memory.free);
    expect(facts.disks.every(({free, total}) => free > 0 && free <= total)).toBe(true);
  });
});
