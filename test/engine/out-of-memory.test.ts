import {describe, expect} from 'vitest';
import {compile} from '../../src/engine/compile.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {expectNoLeak, onTensorFlow} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

/** A result of 2^44 numbers, 70 TB. */
const SIDE = 2 ** 22;

describe('a compiled function that needs more memory than there is', () => {
  onTensorFlow('fails with an error that says what to lower, and leaves nothing behind', () =>
    expectNoLeak(async () => {
      const x = tf.ones([SIDE, 1]);
      const outer = compile((column: tf.Tensor) => tf.mul(column, tf.reshape(column, [1, SIDE])), {name: 'outer'});
      const error: unknown = await outer(x).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(EnvironmentError);
      expect((error as Error).message).toMatch(/^Out of memory in /);
      expect(error).toMatchObject({hint: 'Lower train.batch.sequences or data.sequenceLength.'});
      outer.dispose();
      x.dispose();
    }),
  );
});
