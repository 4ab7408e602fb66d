import {Option} from '@commander-js/extra-typings';
import {loadConfig} from '../../config/load.js';
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
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'train configs/quickstart.yaml --arm downcycle',
        'train configs/quickstart.yaml --set model=models/moe --out checkpoints/moe --set train.steps=500',
      ),
    )
    .action(async (file, {arm, out, resume, allowChange, overwrite, set}) => {
      const loaded = await loadConfig(file, {set});
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
