import {defineConfig} from 'vitest/config';
import {BaseSequencer, type TestSpecification} from 'vitest/node';

/** Files that start an engine as a config says, or change what Node gives them: each has a process of its own. */
const ALONE = [
  'test/{cli,experiment,train}/**/*.test.ts',
  'test/engine/{doctor,start,wasm}.test.ts',
  'test/downcycle/{finite-weights,padding,profile-model}.test.ts',
  'test/{format,downcycle}/disk-full.test.ts',
];
const ALL = 'test/**/*.test.ts';
/** Those of them whose programs are compiled as for a user: what is measured, recorded, or goes through whole commands. */
const AS_SHIPPED = [
  'test/{cli,experiment}/**/*.test.ts',
  'test/train/{crash,estimate,recompute,recorded-losses,run,step-memory,step-plan}.test.ts',
];

/** Half a minute and more; the last one to start would otherwise run alone. */
const LONG =
  /\/(balance-recovery|convert-profile|crash|estimate|family-parity|memory|padding|program-cache|recompute)\.test\.ts$/;

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLong = ({moduleId}: TestSpecification): boolean => LONG.test(moduleId);
    return (await super.sort(files)).toSorted((a, b) => Number(isLong(b)) - Number(isLong(a)));
  }
}

/** Programs of laws run for a moment: to optimise them, and to emit loops through MLIR, takes half of the time. Kept ones are kept apart from the others. */
const QUICKLY_COMPILED = {
  XLA_FLAGS: '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false',
  TF_XLA_FLAGS: (process.env.TF_XLA_FLAGS ?? '').replace(/cache_directory=\S+/, '$&-quick'),
};

export default defineConfig({
  test: {
    pool: 'forks', // tfjs keeps one engine a process; worker threads share it and break
    maxWorkers: '100%',
    // Tests are many small steps: two files at a time with a thread each are half as fast again as one with all threads.
    env: {TF_NUM_INTRAOP_THREADS: '1', TF_NUM_INTEROP_THREADS: '1', TF_XLA_FLAGS: process.env.TF_XLA_FLAGS ?? ''},
    testTimeout: 60_000,
    hookTimeout: 60_000,
    setupFiles: ['test/support/matchers.ts'],
    sequence: {sequencer: LongFirst},
    projects: [
      // To load the engine takes longer than most files of laws: they share processes.
      {extends: true, test: {name: 'shared', include: [ALL], exclude: ALONE, isolate: false, env: QUICKLY_COMPILED}},
      {extends: true, test: {name: 'alone', include: ALONE, exclude: AS_SHIPPED, env: QUICKLY_COMPILED}},
      {extends: true, test: {name: 'as shipped', include: AS_SHIPPED}},
    ],
  },
});
