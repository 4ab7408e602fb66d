import {DTYPES, dtypeOption, examples} from '../option.js';
import type {Program} from '../program.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle merge`. */
export function addMerge(program: Program, ui: Ui): void {
  program
    .command('merge')
    .summary('add low-rank terms (LoRA) to the model they were trained beside')
    .description(
      'Writes the model that a run with train.finetune.kind lora has made: the model it started from, the products of its thin matrices added, and parts that were trained whole in place of the old ones. Needed where train.finetune.merge is false; otherwise each checkpoint has that model in its folder model.',
    )
    .argument('<run>', 'run folder, of which the newest checkpoint is taken, or one of its checkpoints')
    .requiredOption('-o, --out <folder>', 'where to write the model; must not exist')
    .option(
      '--base <model>',
      'model that was trained from, a folder, a GGUF file or a name on the hub; default: the one the run names',
    )
    .addOption(dtypeOption())
    .addHelpText('after', examples('merge checkpoints/recover/model --out models/recovered'))
    .action(async (adapter, {out, base, dtype}) => {
      const [{mergeAdapter}, {folderOf}] = await Promise.all([
        import('../../train/merge.js'),
        import('../../experiment/resolve-models.js'),
      ]);
      const merged = await ui.withStatus(async (status) => {
        const folder = base && (await folderOf(base, showCompare(status)));
        status.update('adding low-rank terms');
        return mergeAdapter({adapter, out, base: folder, dtype: dtype && DTYPES[dtype]});
      });
      const replaced = merged.replaced === 0 ? '' : `, ${merged.replaced} parameters trained whole`;
      const isRounded = merged.dtype === 'BF16' || merged.dtype === 'F16';
      const rounded = isRounded ? `, rounded to ${merged.dtype}` : '';
      ui.print(`${merged.base} and ${merged.matrices} low-rank terms${replaced}${rounded}`);
      if (isRounded && dtype === undefined) {
        ui.note(
          `${merged.base} is ${merged.dtype}, too coarse for part of a small change: --dtype float32 rounds nothing`,
        );
      }
      ui.print(out);
    });
}
