import {Option} from '@commander-js/extra-typings';
import {allowChangeOption, count, examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {showCompare} from '../show/progress.js';
import {recoveryText} from '../show/recovery.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle recover`. */
export function addRecover(program: Program, ui: Ui): void {
  program
    .command('recover')
    .summary('win back what a conversion lost with a short LoRA finetune')
    .description(
      'Trains low-rank terms beside attention and experts of a converted model on a few samples of text, with the settings of CMoE (2,048 samples, rank 8, alpha 32, learning rate 5.65e-5), and prints the perplexity before and after on text that was held out. Every setting is a key of the config that it makes, and can be changed with --set.',
    )
    .argument('<model>', 'the converted model: a folder, or a name on the hub')
    .requiredOption('-t, --text <path...>', 'text to train on: .txt, .jsonl, .parquet, or folders of them')
    .option('-n, --samples <count>', 'rows of text', count, 2048)
    .addOption(
      new Option(
        '--recipe <name>',
        'whose settings: cmoe, or dive, which trains routers with all experts active first, on a tenth of the samples',
      )
        .choices(['cmoe', 'dive'] as const)
        .default('cmoe' as const),
    )
    .option('--tokens <count>', 'tokens of a row', count, 512)
    .option(
      '--name <name>',
      'the run lies in checkpoints/<name>/model; default: recover-<model>, with --recipe dive recover-<model>-dive',
    )
    .addOption(new Option('--resume', 'go on from the last checkpoint').conflicts('overwrite'))
    .addOption(allowChangeOption())
    .option('--overwrite', 'start again where a run of that name exists')
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'recover models/moe --text data/scripture.txt data/geography.txt',
        'recover models/moe --text texts --samples 512 --set train.optimizer.lr=2e-4',
      ),
    )
    .action(async (model, {text, samples, recipe, tokens, name, resume, allowChange, overwrite, set}) => {
      const [{recover}, {exitCodeOf}] = await Promise.all([
        import('../../experiment/recover.js'),
        import('../../train/stop-signal.js'),
      ]);
      const mode = resume ? 'resume' : overwrite ? 'overwrite' : 'new';
      const options = {model, text, samples, recipe, tokens, name, set, mode, allowsChange: allowChange} as const;
      const recovery = await ui.withStatus((status) => recover(options, showCompare(status)));
      if (recovery.result.reason === 'interrupted') {
        ui.note('Stopped, and saved; --resume goes on.');
        ui.exitCode = exitCodeOf(recovery.result.signal ?? 'SIGINT');
      }
      ui.print(recoveryText(recovery));
      ui.print(recovery.result.out);
    });
}
