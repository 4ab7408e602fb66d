import type {EvaluateOptions, Evaluation} from '../../eval/evaluate.js';
import {readableJson} from '../../format/json.js';
import type {StatusLine} from '../../report/terminal.js';
import {refuseExisting} from '../../util/atomic.js';
import {count, examples, seed} from '../option.js';
import type {Program} from '../program.js';
import {evaluationText} from '../show/evaluation.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle eval`. */
export function addEval(program: Program, ui: Ui): void {
  program
    .command('eval')
    .summary('measure a model on multiple choice and on texts, or two models against each other')
    .description(
      'Answers multiple choice as lm-evaluation-harness does (acc, acc_norm, standard errors), and measures perplexity and bits a byte of texts over windows that overlap. With --routing it says what the routers of a mixture do on them. With --against a second model is measured on the same, and a paired bootstrap says how sure the difference is. Runs layer by layer: only part of a model is in memory.',
    )
    .argument('<model>', 'dense model or mixture: a folder, a GGUF file, or a name on the hub')
    .option(
      '--tasks <file...>',
      'multiple choice: JSON Lines of query, choices, gold or context_options, continuation, gold',
    )
    .option(
      '--few-shot <count>',
      'records at the beginning of each task that are shown before each item; default: none',
      count,
    )
    .option('--limit <count>', 'items of each task at most; default: all', count)
    .option('--text <file...>', 'texts to foretell: .txt, .jsonl or .parquet')
    .option('--by <field>', 'field of the records of --text, such as domain, that parts them into rows')
    .option('--window <tokens>', 'tokens that the model reads at once; default: 1024, or as many as it takes', count)
    .option('--stride <tokens>', 'tokens from one window to the next; default: half a window', count)
    .option('--tokens <count>', 'tokens of each text at most; default: all', count)
    .option('--routing', 'watch the routers of a mixture on --text: loads, experts used together, experts of each text')
    .option('--against <model>', 'second model, measured on the same and compared')
    .option('--seed <number>', 'what the bootstrap of --against draws; default: 0', seed)
    .option('-o, --out <folder>', 'also write a page with tables and heat maps, and everything as JSON; must not exist')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      examples(
        'eval models/moe --tasks hellaswag.jsonl piqa.jsonl --limit 500',
        'eval models/moe --text data/scripture.txt --against checkpoints/dense-4m --json',
        'eval models/moe --text data/scripture.txt data/javascript.txt --routing --out reports/routing',
        'eval models/moe --text domains.jsonl --by domain --routing',
      ),
    )
    .action(async (name, {json = false, out, ...flags}) => {
      const {requireAsked} = await import('../../eval/evaluate.js');
      requireAsked(flags);
      if (out !== undefined) await refuseExisting(out);
      const evaluation = await ui.withStatus((status) => evaluateNamed({...flags, model: name}, status));
      ui.print(json ? readableJson(evaluation) : evaluationText(evaluation));
      if (out === undefined) return;
      const {writeEvaluation} = await import('../../experiment/evaluation-report.js');
      const {page} = await writeEvaluation(out, evaluation);
      if (!json) ui.print(`\n${page}`);
    });
}

/** Evaluates models by their names on the hub, or folders, on a status line. */
async function evaluateNamed(options: EvaluateOptions, status: StatusLine): Promise<Evaluation> {
  const [{evaluate}, {folderOf}, {begin}, {engineSchema}] = await Promise.all([
    import('../../eval/evaluate.js'),
    import('../../experiment/resolve-models.js'),
    import('../../experiment/begin.js'),
    import('../../engine/options.js'),
  ]);
  const show = showCompare(status);
  const model = await folderOf(options.model, show);
  const against = options.against === undefined ? undefined : await folderOf(options.against, show);
  await begin({engine: engineSchema.parse({})}, against === undefined ? [model] : [model, against], show);
  return evaluate({...options, model, against}, ({model: path, layer, layers, walk, walks}) =>
    status.update(`${path}  layer ${layer} of ${layers}${walks > 1 ? `, walk ${walk} of ${walks}` : ''}`),
  );
}
