/** One process for step-memory.test.ts: compiles and runs one training step of a small dense model. */
import {startEngine} from '../../src/engine/start.js';
import {createVariable} from '../../src/engine/variable.js';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {stepRates} from '../../src/train/optimizer.js';
import {createTrainState} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {integers} from '../support/host.js';
import {DENSE, SEQUENCE} from './support.js';

await startEngine({device: 'cpu'});
const parameters = mapTree(parameterSpecs(DENSE), (spec) =>
  createVariable(spec.path, spec.shape, initialValues(spec, DENSE, 1)),
);
const model = {path: '', architecture: DENSE, config: {}, parameters, warnings: [], dispose: () => undefined};
const state = await createTrainState(model, {accumulates: false, moments: () => Promise.resolve(null)});
const betas = [0.9, 0.95] as const;
const runner = createStepRunner(state, {
  optimizer: {betas, eps: 1e-8, weightDecay: 0.1},
  ...{clip: 1, balanceWeight: 0, zWeight: 0, precision: 'float32', capacity: 'dropless', sequenceLength: SEQUENCE},
});
const tokens = integers([2 * (SEQUENCE + 1)], 274, 1).values as Int32Array;
const {loss} = await runner.run([{tokens}], stepRates(0.01, 1, betas));
process.stdout.write(`${JSON.stringify({loss, numParameters: leavesOf(parameters).length})}\n`);
process.exit(0);
