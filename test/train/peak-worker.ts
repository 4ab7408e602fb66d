/** One process for estimate.test.ts: trains as the run in the first argument says and prints the most memory it ever held. */
import {readFileSync} from 'node:fs';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';

await train(JSON.parse(process.argv[2] ?? '') as TrainRun);
const status = readFileSync('/proc/self/status', 'utf8');
const bytes = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024; // the kernel's own record
process.stdout.write(`${JSON.stringify({bytes})}\n`);
