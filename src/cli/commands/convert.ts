import {Option} from '@commander-js/extra-typings';
import {loadConfig} from '../../config/load.js';
import {UsageError} from '../../util/errors.js';
import {armFlags, armOptions, optionDescription} from '../arm-options.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {planText} from '../show/plan.js';
import {showCompare, startText} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle convert`. */
export function addConvert(program: Program, ui: Ui): void {
  const command = program
    .command('convert')
    .summary('make a mixture of experts out of a dense model')
    .description(
      'Makes the model that one arm of a config starts from, and proves it: with all experts active it must give the logits of its dense parent. Where an arm changes what it copies, the line says so instead. If the model is a mixture of experts already, an arm of method cmoe cuts each of its experts once more. The flags from --method on change the arm, and win over --set; in a config without arms they make one.',
    )
    .argument('<config>', 'YAML file with `model` and `data`, and `arms` unless flags say all')
    .option('-o, --out <folder>', 'where to write the model; must not exist')
    .addOption(new Option('--dry-run', 'print the plan layer by layer and write no model').conflicts('out'))
    .option('-a, --arm <name>', 'which arm; default: the `arm` of the config, or its only one')
    .option('--profile <file>', 'what `downcycle profile` wrote; default: the model is profiled if the method needs it')
    .addOption(setOption());
  for (const option of armOptions()) command.addOption(option);
  command
    .configureHelp({...command.configureHelp(), optionDescription})
    .addHelpText(
      'after',
      examples(
        'convert configs/quickstart.yaml --arm downcycle --dry-run',
        'convert configs/quickstart.yaml --arm downcycle --out models/moe',
        'convert configs/quickstart.yaml --arm downcycle --top-k 8 --out models/moe-8',
        'convert configs/quickstart.yaml --arm random-split --method contiguous --dry-run',
      ),
    )
    .action(async (file, {out, arm, profile, set, dryRun = false}) => {
      if (out === undefined && !dryRun) {
        throw new UsageError('Where shall the model go?', {
          hint: 'Say --out <folder>, or --dry-run to see the plan only.',
        });
      }
      const loaded = await loadConfig(file, {set, arm: {arm, flags: armFlags(command.opts())}});
      const {convertArm, planConfig} = await import('../../experiment/one-arm.js');
      if (out === undefined) {
        const plan = await ui.withStatus((status) => planConfig({loaded, arm, profile}, showCompare(status)));
        ui.print(planText(plan, loaded.config.data.sequenceLength));
        return;
      }
      const made = await ui.withStatus((status) => convertArm({loaded, arm, out, profile}, showCompare(status)));
      ui.print(`${startText(made)}\n${out}`);
    });
}
