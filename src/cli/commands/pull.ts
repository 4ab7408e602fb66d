import {formatCount} from '../../report/number.js';
import {examples} from '../option.js';
import type {Program} from '../program.js';
import {showDownload} from '../show/download.js';
import {lines} from '../show/lines.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle pull`. */
export function addPull(program: Program, ui: Ui): void {
  program
    .command('pull')
    .summary('download a model from the Hugging Face hub')
    .description(
      'Downloads config, safetensors and tokenizer of a model into the cache that Python uses, too, and prints where. A download that was interrupted goes on. What is in the cache is not asked for again: a branch stays at the commit that it had; name another commit to get that. Everywhere a model is asked for its name will do as well, and downloads it when it is needed. HF_TOKEN opens private models, HF_HUB_OFFLINE=1 forbids the network.',
    )
    .argument('<model>', 'org/name, or org/name@revision with a branch, tag or commit')
    .option('-o, --out <folder>', 'copy the model to a folder of its own as well; must not exist')
    .addHelpText(
      'after',
      examples('pull HuggingFaceTB/SmolLM2-135M', 'pull HuggingFaceTB/SmolLM2-135M@main --out models/smollm2'),
    )
    .action(async (model, {out}) => {
      const {pull} = await import('../../hub/pull.js');
      const {path, commit, files, bytes} = await ui.withStatus((status) =>
        pull({model, out, onProgress: showDownload(status)}),
      );
      const text = lines([
        ['model', model],
        ['commit', commit],
        ['size', `${formatCount(bytes)}B in ${files} files`],
      ]);
      ui.print(`${text}\n${path}`);
    });
}
