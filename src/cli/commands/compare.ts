import {loadConfig} from '../../config/load.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle compare`. */
export function addCompare(program: Program, ui: Ui): void {
  program
    .command('compare')
    .summary('train all arms of a config on the same text and draw their curves')
    .description(
      'Profiles the dense model, makes the starting model of every arm and proves it, trains all arms on the same token stream and writes a report. Finished parts are kept: the same command goes on where it was stopped.',
    )
    .argument('<config>', 'YAML file with `arms`')
    .option('--overwrite', 'start every arm again, instead of going on with what is there')
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'compare configs/quickstart.yaml',
        'compare configs/quickstart.yaml --set name=longer --set train.steps=400',
      ),
    )
    .action(async (file, {overwrite = false, set}) => {
      const loaded = await loadConfig(file, {set});
      const [{compare}, {summaryText}, {exitCodeOf}] = await Promise.all([
        import('../../experiment/compare.js'),
        import('../../report/summary.js'),
        import('../../train/stop-signal.js'),
      ]);
      const {report, runs} = await ui.withStatus((status) => compare({loaded, overwrite}, showCompare(status)));
      if (!report) {
        ui.note('Stopped, and saved; the same command goes on.');
        ui.exitCode = exitCodeOf(runs.at(-1)?.signal ?? 'SIGINT');
        return;
      }
      for (const note of report.notes) ui.note(note);
      ui.print(summaryText(report.summary, {head: (text) => ui.paint('bold', text)}));
      ui.print(`\n${report.page}`);
    });
}
