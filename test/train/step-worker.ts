/** One process for step-memory.test.ts: compiles and runs one training step of a small model, `dense` or `routed`. */
import {startEngine} from '../../src/engine/start.js';
import {createVariable} from '../../src/engine/variable.js';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {createTrainState} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {integers} from '../support/host.js';
import {DENSE, FRESH, PLAIN_STEP, ROUTED, ratesAt, SEED, SEQUENCE} from './support.js';

await startEngine({device: 'cpu'});
const architecture = process.argv[2] === 'dense' ? DENSE : ROUTED;
const parameters = mapTree(parameterSpecs(architecture), (spec) =>
  createVariable(spec.path, spec.shape, initialValues(spec, architecture, 1)),
);
const model = {path: '', architecture, config: {}, parameters, warnings: [], dispose: () => undefined};
const state = await createTrainState(model, FRESH);
const runner = createStepRunner(state, {...PLAIN_STEP, clip: 1});
const tokens = integers([2 * (SEQUENCE + 1)], 274, 1).values as Int32Array;
const {loss} = await runner.run([{tokens}], ratesAt(0.01, 1), SEED);
process.stdout.write(`${JSON.stringify({loss, shapes: leavesOf(parameters).map(({shape}) => shape)})}\n`);
