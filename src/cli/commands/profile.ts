import {loadConfig} from '../../config/load.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {profileText} from '../show/profile.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle profile`. */
export function addProfile(program: Program, ui: Ui): void {
  program
    .command('profile')
    .summary('watch which FFN neurons react to which text')
    .description(
      'Runs calibration samples of every task through the dense model of a config and keeps what each FFN neuron did. A task is a source, or a value of a field of JSONL or parquet records (profile.task). A profile that was stopped goes on when the same command runs again.',
    )
    .argument('<config>', 'YAML file with `model`, `data` and `profile`')
    .requiredOption('-o, --out <file>', 'safetensors file to write; must not exist')
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'profile configs/quickstart.yaml --out profile.safetensors',
        'profile configs/quickstart.yaml --out large.safetensors --set profile.samplesPerTask=20',
        "profile mine.yaml --out by-domain.safetensors --set 'profile.task={field: domain}'",
      ),
    )
    .action(async (file, {out, set}) => {
      const loaded = await loadConfig(file, {set});
      const {profileConfig} = await import('../../experiment/profile.js');
      const made = await ui.withStatus((status) => profileConfig(loaded, out, showCompare(status)));
      ui.print(`${profileText(made)}\n${out}`);
    });
}
