#!/usr/bin/env node
import {exitCodeOf, STOP_SIGNALS} from '../train/stop-signal.js';
import {systemCode} from '../util/errors.js';
import {runCli} from './run.js';

// A reader such as `head` that has seen enough is no error, nor is a terminal that is gone: training saves first.
process.stdout.on('error', (error) => {
  if (systemCode(error) === 'EPIPE') process.exit(0);
  if (systemCode(error) !== 'EIO') throw error;
});
process.stderr.on('error', (error) => {
  if (!['EIO', 'EPIPE'].includes(systemCode(error) ?? '')) throw error;
});

// Leaving this way takes away what is half written. Training listens by itself: it finishes its step and saves first.
for (const signal of STOP_SIGNALS) {
  process.on(signal, () => {
    if (process.listenerCount(signal) > 1) return;
    process.stderr.write('\nStopped. Nothing half-written is left.\n');
    process.exit(exitCodeOf(signal));
  });
}

const code = await runCli(process.argv.slice(2), process);
// Not left to end by itself: TensorFlow's threads must not be running while its library is unloaded.
process.stdout.write('', () => process.exit(code));
