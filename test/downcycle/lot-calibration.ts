// Calibration text for the tiny llama: tokens by lot, since nothing that uses it depends on what they say.
import type {Calibration} from '../../src/downcycle/calibration.js';
import {createRng} from '../../src/util/rng.js';

/** Sequences of the text, and tokens of each. */
export const [J, S] = [8, 16];

const rng = createRng(9, 'tokens');

export const lotCalibration: Calibration = {
  tokens: Int32Array.from({length: J * S}, () => rng.int(32)),
  sequenceLength: S,
  tasks: ['a'],
  taskOfSample_J: new Int32Array(J),
  hash: 'h',
};
