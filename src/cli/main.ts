#!/usr/bin/env node
import {systemCode} from '../util/errors.js';
import {runCli} from './run.js';

// A reader such as `head` that has seen enough is no error.
process.stdout.on('error', (error) => {
  if (systemCode(error) === 'EPIPE') process.exit(0);
  throw error;
});

const code = await runCli(process.argv.slice(2), process);
// Not left to end by itself: TensorFlow's threads must not be running while its library is unloaded.
process.stdout.write('', () => process.exit(code));
