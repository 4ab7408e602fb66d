import {expect} from 'vitest';
import {compile} from '../../src/engine/compile.js';
import {onTensorFlow} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

/** Milliseconds between two looks of the watch. */
const TICK = 10;

/** Runs `fn` and returns its duration and the longest time between two ticks of a timer, in milliseconds. */
async function watch(fn: () => Promise<void>): Promise<{duration: number; longest: number}> {
  let last = performance.now();
  let longest = 0;
  const tick = (): void => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const timer = setInterval(tick, TICK);
  const begin = last;
  await fn();
  tick();
  clearInterval(timer);
  return {duration: performance.now() - begin, longest};
}

onTensorFlow('the event loop is never blocked over 100 ms by a compiled step of more than a second', async () => {
  const fn = compile((x: tf.Tensor2D, rounds: tf.Tensor1D) => {
    let y = x;
    for (let i = 0; i < rounds.size; i++) y = tf.mul(tf.matMul(y, x), 1 / 1024);
    return tf.sum(y);
  });
  const x = tf.ones([1024, 1024]) as tf.Tensor2D;
  tf.tidy(() => tf.neg(x)); // uploads
  const step = async (rounds: tf.Tensor1D): Promise<void> => tf.dispose(await fn(x, rounds));
  const timed = async (count: number) => {
    const rounds = tf.zeros([count]) as tf.Tensor1D;
    await step(rounds); // compiles, which traces on this thread
    const result = await watch(() => step(rounds));
    rounds.dispose();
    return result;
  };
  // How many rounds take a second depends on the machine and on what else it does, so one measured length foretells nothing.
  let [rounds, watched] = [10, await timed(10)];
  while (watched.duration <= 1000 && rounds < 100_000) {
    rounds *= 2;
    watched = await timed(rounds);
  }
  expect(watched.duration).toBeGreaterThan(1000);
  expect(watched.longest).toBeLessThan(100);
  x.dispose();
  fn.dispose();
});
