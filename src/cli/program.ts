import {Command} from '@commander-js/extra-typings';
import {packageVersion} from '../util/version.js';
import type {Io} from './ui.js';

const ABOUT = 'Turn a dense GLU language model into a sparse mixture of experts and keep pretraining it.';
const CODES = `
Exit codes:
  0 done   1 unforeseen   2 command line   3 config   4 data   5 model or checkpoint   6 machine
`;

/** The program without its commands: name, global options, exit codes, where it prints. */
export function createProgram({stdout, stderr}: Io) {
  return new Command('downcycle')
    .description(ABOUT)
    .version(packageVersion(), '-V, --version', 'print the version')
    .option('-q, --quiet', 'print results and errors only')
    .option('--no-color', 'print without colour; so does NO_COLOR=1')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help on a command')
    .addHelpText('after', CODES)
    .configureHelp({showGlobalOptions: true})
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
      outputError: (text, write) => write(text.replace(/^\((Did you mean .*)\)$/m, 'hint: $1')),
    })
    .exitOverride();
}

/** The program that commands are added to. */
export type Program = ReturnType<typeof createProgram>;
