import {Option} from '@commander-js/extra-typings';
import type {ExportOptions} from '../../export/export.js';
import {TARGET_NAMES} from '../../export/names.js';
import type {StatusLine} from '../../report/terminal.js';
import {UsageError} from '../../util/errors.js';
import {DTYPES, dtypeOption, examples} from '../option.js';
import type {Program} from '../program.js';
import {exportedText, plansText} from '../show/exported.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle export`. */
export function addExport(program: Program, ui: Ui): void {
  program
    .command('export')
    .summary('write a mixture as a model that transformers knows')
    .description(
      'Writes a mixture of experts in the form of a family that transformers has, so that no code of ours is needed to run it: weights, config, tokenizer, a card (README.md) and a record of what was rewritten (export.json). Both models are then run on the same tokens, and their logits compared. Most mixtures can be said exactly; where one can only be said nearly, the export must be allowed, and how near is measured.',
    )
    .argument('<model>', 'the mixture: a folder, or a name on the hub')
    .option('-o, --out <folder>', 'where to write the model; must not exist')
    .addOption(
      new Option('--to <target>', 'which family; auto takes the one that says it exactly and smallest')
        .choices(['auto', ...TARGET_NAMES] as const)
        .default('auto' as const),
    )
    .option('--text <file>', 'text to compare on, and to fit routers on; default: tokens drawn at random')
    .addOption(dtypeOption())
    .option('--allow-approximate', 'write what is only nearly the same, too')
    .addOption(
      new Option('--dry-run', 'say which families can hold the model, and write nothing').conflicts([
        'out',
        'text',
        'allowApproximate',
      ]),
    )
    .addHelpText(
      'after',
      examples(
        'export models/moe --dry-run',
        'export models/moe --out models/moe-hf',
        'export models/moe --to glm4_moe --text data/scripture.txt --allow-approximate --out models/moe-glm',
      ),
    )
    .action(async (name, {out, to, text, dtype: word, allowApproximate, dryRun = false}) => {
      if (out === undefined && !dryRun) {
        throw new UsageError('Where shall the model go?', {
          hint: 'Say --out <folder>, or --dry-run to see what it can be exported to.',
        });
      }
      const asked = {model: name, out, to, text, dtype: word && DTYPES[word], allowsApproximate: allowApproximate};
      ui.print(
        await ui.withStatus((status) => (out === undefined ? plans(asked, status) : written({...asked, out}, status))),
      );
    });
}

/** Which families can hold a model, as text. */
async function plans({model: name, to, dtype}: Omit<ExportOptions, 'out'>, status: StatusLine): Promise<string> {
  const [{exportPlans}, {folderOf}] = await Promise.all([
    import('../../export/export.js'),
    import('../../experiment/resolve-models.js'),
  ]);
  const all = await exportPlans({model: await folderOf(name, showCompare(status)), dtype});
  return plansText(to === 'auto' ? all : all.filter(({target}) => target === to));
}

/** Exports a model by its name on the hub, or a folder, and says what was written. */
async function written(options: ExportOptions, status: StatusLine): Promise<string> {
  const [{exportModel}, {folderOf}, {begin}, {engineSchema}] = await Promise.all([
    import('../../export/export.js'),
    import('../../experiment/resolve-models.js'),
    import('../../experiment/begin.js'),
    import('../../engine/options.js'),
  ]);
  const show = showCompare(status);
  const model = await folderOf(options.model, show);
  await begin({engine: engineSchema.parse({})}, [model], show);
  return exportedText(await exportModel({...options, model}, (stage) => status.update(stage)));
}
