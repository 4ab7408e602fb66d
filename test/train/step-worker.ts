/** One process for step-memory.test.ts: compiles and runs one training step of a small model, `dense` or `routed`, `at-once` or of two passes, `accumulated`. */
import {startEngine} from '../../src/engine/start.js';
import {getEngine} from '../../src/engine/state.js';
import {createVariable} from '../../src/engine/variable.js';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {createTrainState} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {integers} from '../support/host.js';
import {DENSE, FRESH, PLAIN_STEP, ROUTED, ratesAt, SEED, SEQUENCE} from './support.js';

await startEngine({device: 'cpu'});
const [, , kind, passes] = process.argv;
const architecture = kind === 'dense' ? DENSE : ROUTED;
const parameters = mapTree(parameterSpecs(architecture), (spec) =>
  createVariable(spec.path, spec.shape, initialValues(spec, architecture, 1)),
);
const model = {path: '', architecture, config: {}, parameters, warnings: [], dispose: () => undefined};
const accumulates = passes === 'accumulated';
const state = await createTrainState(model, {...FRESH, accumulates});
const constants = countConstants();
const runner = createStepRunner(state, {...PLAIN_STEP, clip: 1});
const tokens = integers([2 * (SEQUENCE + 1)], 274, 1).values as Int32Array;
const {loss} = await runner.run(accumulates ? [{tokens}, {tokens}] : [{tokens}], ratesAt(0.01, 1), SEED);
process.stdout.write(`${JSON.stringify({loss, constants, shapes: leavesOf(parameters).map(({shape}) => shape)})}\n`);

/** How many numbers each array of the host has that becomes a part of a program from now on. */
function countConstants(): readonly number[] {
  const engine = getEngine();
  if (engine.kind === 'wasm') throw new Error('nothing is compiled');
  const {binding} = engine.backend;
  const create = binding.createTensor.bind(binding);
  const sizes: number[] = [];
  binding.createTensor = (shape, dtype, values) => {
    if (binding.trace) sizes.push(values.length);
    return create(shape, dtype, values);
  };
  return sizes;
}
