import {loadConfig} from '../../config/load.js';
import {examples, setOption} from '../option.js';
import type {Program} from '../program.js';
import {preparedText, prepareStatus} from '../show/prepared.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle prepare`. Libraries are loaded when a command runs, so that help comes at once. */
export function addPrepare(program: Program, ui: Ui): void {
  program
    .command('prepare')
    .summary('turn text into shards of packed tokens')
    .description(
      'Tokenizes the sources of a config with the tokenizer of its model and packs them into Arrow shards, one for training and one for validation of each source.',
    )
    .argument('<config>', 'YAML file with `model` and `data`')
    .requiredOption('-o, --out <folder>', 'where to write the shards; must not exist')
    .addOption(setOption())
    .addHelpText(
      'after',
      examples(
        'prepare configs/quickstart.yaml --out data/packed',
        'prepare configs/quickstart.yaml --out data/long --set data.sequenceLength=1024',
      ),
    )
    .action(async (file, {out, set}) => {
      const loaded = await loadConfig(file, {set});
      const [{prepare}, {loadTokenizer}, {checkPaths}, {resolveModels}] = await Promise.all([
        import('../../data/prepare.js'),
        import('../../tokenizer/tokenizer.js'),
        import('../../experiment/check.js'),
        import('../../experiment/resolve-models.js'),
      ]);
      const result = await ui.withStatus(async (status) => {
        const here = await resolveModels(loaded, {}, showCompare(status));
        await checkPaths(here);
        const {data, model} = here.config;
        const tokenizer = await loadTokenizer(model);
        return prepare({data, tokenizer, out}, (state) => status.update(prepareStatus(state)));
      });
      ui.print(preparedText(result));
    });
}
