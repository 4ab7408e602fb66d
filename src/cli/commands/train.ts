import {Option} from '@commander-js/extra-typings';
import {loadConfig} from '../../config/load.js';
import type {TrainConfigOptions} from '../../experiment/one-arm.js';
import {allowChangeOption, examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle train`. */
export function addTrain(program: Program, ui: Ui): void {
  program
    .command('train')
    .summary('pretrain one arm of a config, or its model as it is')
    .description(
      'Trains on the packed text of a config and writes a run folder: log.jsonl, config.yaml and checkpoints. Ctrl-C finishes the step and saves; --resume goes on.',
    )
    .argument('<config>', 'YAML file with `model`, `data` and `train`')
    .option('-a, --arm <name>', 'which arm; default: the `arm` of the config, else its model as it is')
    .option('-o, --out <folder>', 'run folder; default: checkpoints/<name>/<arm>')
    .addOption(new Option('--resume', 'go on from the last checkpoint of the run folder').conflicts('overwrite'))
    .addOption(allowChangeOption())
    .option('--overwrite', 'start again in a run folder that exists')
    .addOption(
      new Option(
        '--estimate',
        'print what the run will need of memory and time, and end; the model of an arm is made first',
      ).conflicts(['out', 'resume', 'overwrite']),
    )
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'train configs/quickstart.yaml --arm downcycle',
        'train configs/quickstart.yaml --arm downcycle --estimate',
        'train configs/quickstart.yaml --set model=models/moe --out checkpoints/moe --set train.steps=500',
      ),
    )
    .action(async (file, {arm, out, resume, allowChange, overwrite, estimate, set}) => {
      const loaded = await loadConfig(file, {set});
      if (estimate) return printEstimate(ui, {loaded, arm});
      const [{trainConfig}, {exitCodeOf}] = await Promise.all([
        import('../../experiment/one-arm.js'),
        import('../../train/stop-signal.js'),
      ]);
      const mode = resume ? 'resume' : overwrite ? 'overwrite' : 'new';
      const result = await ui.withStatus((status) =>
        trainConfig({loaded, arm, out, mode, allowsChange: allowChange}, showCompare(status)),
      );
      if (result.reason === 'interrupted') {
        ui.note('Stopped, and saved; --resume goes on.');
        ui.exitCode = exitCodeOf(result.signal ?? 'SIGINT');
      }
      ui.print(result.out);
    });
}

/** @throws EnvironmentError if the run does not fit, once the table is printed. */
async function printEstimate(ui: Ui, options: Pick<TrainConfigOptions, 'loaded' | 'arm'>): Promise<void> {
  const [{estimateConfig}, {requireFit}, {estimateText}] = await Promise.all([
    import('../../experiment/one-arm.js'),
    import('../../train/fit.js'),
    import('../show/estimate.js'),
  ]);
  const {run, estimate} = await ui.withStatus((status) => {
    status.update('asking the compiler');
    return estimateConfig(options, showCompare(status));
  });
  for (const note of estimate.notes) ui.note(note);
  ui.print(estimateText(estimate));
  requireFit(estimate, run);
}
