/** Stands in for the process that plans a step, for step-plan.test.ts: does what the name of its run says. */
import {once} from 'node:events';
import {writeFileSync} from 'node:fs';
import {createInterface} from 'node:readline';
import type {PlanOrder} from '../../src/train/step-plan.js';
import {ConfigError, recordOf} from '../../src/util/errors.js';

const [line] = (await once(createInterface(process.stdin), 'line')) as [string];
const {run} = JSON.parse(line) as PlanOrder;
if (run.name === 'killed') process.kill(process.pid, 'SIGKILL');
if (run.name === 'refused') {
  const error = recordOf(new ConfigError('It cannot be.', {hint: 'Let it be.'}));
  process.stdout.write(`${JSON.stringify({kind: 'failed', error})}\n`, () => process.exit(0));
}
if (run.name === 'broken') {
  process.stderr.write('it broke\n', () => process.exit(1));
}
if (run.name === 'waiting') {
  writeFileSync(run.out, String(process.pid));
  setInterval(() => undefined, 1000);
}
