import {loadConfig} from '../../config/load.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle conversions`. */
export function addConversions(program: Program, ui: Ui): void {
  program
    .command('conversions')
    .summary('convert by every method and compare perplexities, without training')
    .description(
      'Converts the dense model by every arm that cuts it, at every sparsity and seed of `conversions`, measures perplexity on held-out texts and writes a table, a page and a CSV file. Rows are kept: the same command goes on where it was stopped.',
    )
    .argument('<config>', 'YAML file with `arms` and `conversions`')
    .addOption(setOption())
    .addHelpText('after', examples('conversions configs/conversions.yaml'))
    .action(async (file, {set}) => {
      const loaded = await loadConfig(file, {set});
      const [{compareConversions}, {conversionText}] = await Promise.all([
        import('../../experiment/conversions.js'),
        import('../show/conversions.js'),
      ]);
      const {rows, page, csv} = await ui.withStatus((status) => compareConversions(loaded, showCompare(status)));
      ui.print(`${conversionText(rows, (text) => ui.paint('bold', text))}\n\n${page}\n${csv}`);
    });
}
