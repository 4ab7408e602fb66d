#!/usr/bin/env node
import {isatty} from 'node:tty';
import {exitCodeOf, STOP_SIGNALS} from '../train/stop-signal.js';
import {systemCode} from '../util/errors.js';
import {runCli} from './run.js';

const [, hasOutTerminal, hasErrorTerminal] = [0, 1, 2].map((stream) => isatty(stream));
const hasTerminal = [0, 1, 2].some((stream) => isatty(stream));
let isHungUp = false;

// A reader such as `head` that has seen enough is no error, nor is a terminal that is gone. Training goes on without either.
process.stdout.on('error', (error) => {
  const code = systemCode(error);
  if (code === 'EPIPE' && !isTraining()) process.exit(0);
  if (code !== 'EPIPE' && !(code === 'EIO' && hasOutTerminal)) throw error;
});
process.stderr.on('error', (error) => {
  const code = systemCode(error);
  if (code !== 'EPIPE' && !(code === 'EIO' && hasErrorTerminal)) throw error;
});

// Leaving this way takes away what is half written. Training listens by itself: it finishes its step and saves first.
for (const signal of STOP_SIGNALS) {
  process.on(signal, () => {
    isHungUp ||= signal === 'SIGHUP';
    if (isTraining()) return;
    process.stderr.write('\nStopped. Nothing half-written is left.\n');
    end(exitCodeOf(signal));
  });
}

/** Training listens beside us. */
function isTraining(): boolean {
  return process.listenerCount('SIGTERM') > 1;
}

const code = await runCli(process.argv.slice(2), process);
// Not left to end by itself: TensorFlow's threads must not be running while its library is unloaded.
process.stdout.write('', () => end(code));

/** Node's own end crashes where its terminal is gone: there the signal ends us, once all is done that an end does. */
function end(code: number): void {
  if (!isHungUp || !hasTerminal) process.exit(code);
  process.emit('exit', code);
  process.removeAllListeners('SIGHUP');
  process.kill(process.pid, 'SIGHUP');
}
