import {InvalidArgumentError, Option} from '@commander-js/extra-typings';
import {examples} from '../option.js';
import type {Program} from '../program.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle plot`. */
export function addPlot(program: Program, ui: Ui): void {
  program
    .command('plot')
    .summary('draw the loss curves of runs together')
    .description('Writes one HTML page, the curves as SVG, PNG and Vega-Lite, and the numbers behind them as JSON.')
    .argument('<run...>', 'run folders, in the order in which they are shown')
    .requiredOption('-o, --out <folder>', 'where to write the report; must not exist, but see --replace')
    .option('--title <text>', 'title of the page; default: the name of the experiment')
    .addOption(
      new Option('-x, --x <axis>', 'what losses are drawn against')
        .choices(['tokens', 'flops', 'steps'] as const)
        .default('tokens' as const),
    )
    .option(
      '--smoothing <share>',
      'weight of the past in the moving average of the training loss, 0 to below 1',
      share,
      0.9,
    )
    .option('--replace', 'replace an older report at --out')
    .addHelpText(
      'after',
      examples(
        'plot checkpoints/quickstart/* --out report',
        'plot checkpoints/quickstart/downcycle checkpoints/quickstart/scratch -x flops --out report --replace',
      ),
    )
    .action(async (runs, {out, title, x, smoothing, replace = false}) => {
      const [{writeReport}, {summaryText}] = await Promise.all([
        import('../../report/report.js'),
        import('../../report/summary.js'),
      ]);
      const report = await writeReport({runs, out, title, x, smoothing, replace});
      for (const note of report.notes) ui.note(note);
      ui.print(summaryText(report.summary, {head: (text) => ui.paint('bold', text)}));
      ui.print(`\n${report.page}`);
    });
}

function share(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (value >= 0 && value < 1) return value;
  throw new InvalidArgumentError('It must be a number from 0 to below 1.');
}
