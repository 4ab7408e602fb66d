#!/usr/bin/env node
import {isatty} from 'node:tty';
import {exitCodeOf, STOP_SIGNALS} from '../train/stop-signal.js';
import {systemCode} from '../util/errors.js';
import {runCli} from './run.js';

const isTerminal = [0, 1, 2].map((stream) => isatty(stream));
const hasTerminal = isTerminal.includes(true);
/** Exit code of an EnvironmentError. */
const OUTPUT_LOST = 6;
let isHungUp = false;
let hasLostOutput = false;

// A reader such as `head` that has seen enough is no error, nor is a terminal that is gone: work goes on without either.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: Error) => {
    const code = systemCode(error);
    if (code === 'EPIPE' || (code === 'EIO' && isTerminal[stream.fd])) return;
    if (stream === process.stderr || hasLostOutput) return; // notes are no result, and once is enough
    hasLostOutput = true;
    process.stderr.write(`error: what was to be printed could not be written: ${error.message}\n`);
  });
}

// Leaving this way takes away what is half written. Training listens by itself: it finishes its step and saves first.
for (const signal of STOP_SIGNALS) {
  process.on(signal, () => {
    isHungUp ||= signal === 'SIGHUP';
    if (process.listenerCount(signal) > 1) return;
    process.stderr.write('\nStopped. Nothing half-written is left.\n');
    end(exitCodeOf(signal));
  });
}

const code = await runCli(process.argv.slice(2), process);
// Not left to end by itself: nothing that still listens or waits may keep a command that is done.
process.stdout.write('', () => setImmediate(() => end(hasLostOutput && code === 0 ? OUTPUT_LOST : code)));

/** Node's own end crashes where its terminal is gone: there the signal ends us, once all is done that an end does. */
function end(code: number): void {
  if (!isHungUp || !hasTerminal) process.exit(code);
  process.emit('exit', code);
  process.removeAllListeners('SIGHUP');
  process.kill(process.pid, 'SIGHUP');
}
