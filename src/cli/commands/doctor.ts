import {Option} from '@commander-js/extra-typings';
import {EnvironmentError} from '../../util/errors.js';
import {examples} from '../option.js';
import type {Program} from '../program.js';
import {diagnosisText} from '../show/diagnosis.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle doctor`. */
export function addDoctor(program: Program, ui: Ui): void {
  program
    .command('doctor')
    .summary('say which engine runs here, why, and what is missing')
    .description(
      'Starts the engine and looks at the machine: libraries, GPU, Node, Python, memory, disk. Changes nothing.',
    )
    .addOption(
      new Option('--device <device>', 'as `engine.device` of a config')
        .choices(['auto', 'cpu', 'cuda', 'wasm'] as const)
        .default('auto' as const),
    )
    .option('--library <folder>', "as `engine.library` of a config: TensorFlow's folder")
    .option('--json', 'print everything as JSON')
    .addHelpText('after', examples('doctor', 'doctor --device cuda'))
    .action(async ({device, library, json = false}) => {
      const [{diagnose}, {gatherFacts}] = await Promise.all([
        import('../../engine/doctor.js'),
        import('../../engine/doctor-facts.js'),
      ]);
      const facts = await gatherFacts({device, library});
      ui.print(json ? JSON.stringify(facts, null, 2) : diagnosisText(diagnose(facts), ui.paint));
      if (facts.engine.kind === 'failed') throw new EnvironmentError('No engine runs with these settings.');
    });
}
