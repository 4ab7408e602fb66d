import {loadConfig} from '../../config/load.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {profileText} from '../show/profile.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle profile`. */
export function addProfile(program: Program, ui: Ui): void {
  program
    .command('profile')
    .summary('watch which FFN neurons react to which text')
    .description(
      'Runs calibration samples of every source through the dense model of a config and keeps the mean activation of each FFN neuron, by sample.',
    )
    .argument('<config>', 'YAML file with `model`, `data` and `profile`')
    .requiredOption('-o, --out <file>', 'safetensors file to write; must not exist')
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'profile configs/quickstart.yaml --out profile.safetensors',
        'profile configs/quickstart.yaml --out large.safetensors --set profile.samplesPerTask=20',
      ),
    )
    .action(async (file, {out, set}) => {
      const loaded = await loadConfig(file, {set});
      const {config, at} = loaded;
      const [
        {profileModel},
        {writeProfile},
        {layoutOf},
        {checkPaths},
        {profileOptionsOf},
        {startEngine},
        {refuseExisting},
      ] = await Promise.all([
        import('../../downcycle/profile-model.js'),
        import('../../downcycle/profile-file.js'),
        import('../../experiment/arm.js'),
        import('../../experiment/check.js'),
        import('../../experiment/profile.js'),
        import('../../engine/start.js'),
        import('../../util/atomic.js'),
      ]);
      await refuseExisting(out);
      await checkPaths(loaded);
      for (const note of (await startEngine(config.engine)).notes) ui.note(note);
      const where = at(['profile', 'tokensPerSample'], ['data', 'sequenceLength']);
      const {model, data} = config;
      const how = {
        model,
        data,
        profile: profileOptionsOf(config),
        shards: layoutOf(config).shards,
        partial: `${out}.partial`,
        where,
      };
      const made = await ui.withStatus((status) =>
        profileModel(how, (what, done, total) => status.update(`${what}  ${done} of ${total}`)),
      );
      await writeProfile(out, made);
      ui.print(`${profileText(made)}\n${out}`);
    });
}
