import type {CApi} from '../../src/engine/native/c-api.js';

/** Time spent in compiled functions since it was last asked. */
export interface ExecuteClock {
  /** Milliseconds since the last call of this. */
  take(): number;
}

/**
 * Counts the time between a compiled call's hand-over to TensorFlow and its return to JavaScript.
 *
 * Compiled functions are all that runs asynchronously; single operations are synchronous calls and count as outside.
 */
export function installExecuteClock(c: CApi): ExecuteClock {
  const execute = c.TFE_Execute;
  let spent = 0;
  const timed: CApi['TFE_Execute']['async'] = (op, outputs, numOutputs, status, done) => {
    const begin = performance.now();
    execute.async(op, outputs, numOutputs, status, (error) => {
      spent += performance.now() - begin;
      done(error);
    });
  };
  const call: typeof execute = Object.assign((...args: Parameters<typeof execute>) => execute(...args), {async: timed});
  c.TFE_Execute = call;
  return {
    take: () => {
      const taken = spent;
      spent = 0;
      return taken;
    },
  };
}
