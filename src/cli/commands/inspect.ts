import {examples} from '../option.js';
import type {Program} from '../program.js';
import {showDownload} from '../show/download.js';
import {inspectionText} from '../show/inspection.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle inspect`. */
export function addInspect(program: Program, ui: Ui): void {
  program
    .command('inspect')
    .summary('say what a model, checkpoint, run, profile or shard holds')
    .description(
      'Reads heads only, never weights: architecture, parameters, tensors, tokenizer, where a mixture came from and how each layer was cut, shards, how far a run is.',
    )
    .argument(
      '<path>',
      'model folder, GGUF file or name on the hub, run folder or its log, folder of runs, checkpoint, profile, .arrow file or folder of them',
    )
    .option('--tensors', 'list every tensor of a model')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', examples('inspect checkpoints/dense-4m', 'inspect checkpoints/quickstart/downcycle --json'))
    .action(async (path, {tensors = false, json = false}) => {
      const {inspect} = await import('../../experiment/inspect.js');
      const inspection = await ui.withStatus((status) => inspect(path, showDownload(status)));
      ui.print(json ? JSON.stringify(inspection, withoutNumbers, 2) : inspectionText(inspection, {tensors}));
    });
}

/** The statistics of a profile are for programs, which read its file. */
function withoutNumbers(_: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) ? undefined : value;
}
