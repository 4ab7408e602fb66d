/** One process for step-plan.test.ts: asks for the plan in its first argument, and leaves as soon as that is begun. */
import {existsSync} from 'node:fs';
import {setTimeout} from 'node:timers/promises';
import type {TrainRun} from '../../src/train/session.js';
import {planStep} from '../../src/train/step-plan.js';

const run = JSON.parse(process.argv[2] ?? '') as TrainRun;
void planStep(run, new URL('./plan-worker.ts', import.meta.url));
while (!existsSync(run.out)) await setTimeout(20);
process.stdout.write('null', () => process.exit(0));
