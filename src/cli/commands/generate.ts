import {isUtf8} from 'node:buffer';
import {readFile} from 'node:fs/promises';
import {InvalidArgumentError, Option} from '@commander-js/extra-typings';
import type {Generated, GenerateEvent, GenerateOptions, Prompt} from '../../eval/generate.js';
import type {Sampling} from '../../eval/sampling.js';
import type {StatusLine} from '../../report/terminal.js';
import {exitCodeOf, listenForStop, type StopSignal} from '../../train/stop-signal.js';
import {DataError, systemCode, UsageError, whyUnread} from '../../util/errors.js';
import {count, examples, seed} from '../option.js';
import type {Program} from '../program.js';
import {generatedJson, generatedText} from '../show/generated.js';
import {showCompare} from '../show/progress.js';
import type {Ui} from '../ui.js';

/** Adds `downcycle generate`. */
export function addGenerate(program: Program, ui: Ui): void {
  program
    .command('generate')
    .summary('let a model go on with a text, or answer')
    .description(
      'Prints what a model adds to a prompt, as it comes; how fast it came is said on standard error. Takes the likeliest token each time unless a temperature is given. The whole model is in memory, in float32; keys and values of the text before are kept, and of experts only those that a token chooses are read. Ctrl-C ends the text.',
    )
    .argument('<model>', 'dense model or mixture: a folder, a GGUF file, or a name on the hub')
    .addOption(new Option('--prompt <text>', 'text to go on from').conflicts(['promptFile', 'chat']))
    .addOption(new Option('--prompt-file <file>', 'the same out of a file, as it is').conflicts(['chat']))
    .option('--chat <text>', 'what a user says, written as the chat template of the model has it')
    .option('--max-tokens <count>', 'tokens to add at most; default: 256, or as many as there are positions for', count)
    .option(
      '--temperature <number>',
      'what logits are divided by before a draw; default: 0, the likeliest token',
      number,
    )
    .option('--top-k <count>', 'draw from so many of the likeliest tokens only', count)
    .option('--top-p <share>', 'draw from the likeliest tokens only that together have this share', number)
    .option('--seed <number>', 'what draws are made from; default: 0', seed)
    .option('--stop <text...>', 'end before any of these')
    .option('--json', 'print everything as JSON at the end')
    .addHelpText(
      'after',
      examples(
        'generate checkpoints/dense-4m --prompt "In the beginning"',
        'generate HuggingFaceTB/SmolLM2-135M-Instruct --chat "Why is the sky blue?" --temperature 0.7 --top-p 0.9',
      ),
    )
    .action(async (model, {json = false, ...flags}) => {
      const options = {...flags, model, prompt: await promptOf(flags), sampling: samplingOf(flags)};
      const generated = await generateNamed(options, ui, (text) => json || ui.write(text));
      if (json) ui.print(JSON.stringify(generatedJson(generated), null, 2));
      else ui.print('');
      ui.note(generatedText(generated));
    });
}

interface PromptFlags {
  readonly prompt?: string | undefined;
  readonly promptFile?: string | undefined;
  readonly chat?: string | undefined;
}

async function promptOf({prompt, promptFile, chat}: PromptFlags): Promise<Prompt> {
  if (chat !== undefined) return {kind: 'chat', messages: [{role: 'user', content: chat}]};
  if (prompt !== undefined) return {kind: 'text', text: prompt};
  if (promptFile !== undefined) return {kind: 'text', text: await readPrompt(promptFile)};
  throw new UsageError('What shall the model go on from?', {
    hint: 'Give a text with --prompt or --prompt-file, or say something with --chat.',
  });
}

async function readPrompt(file: string): Promise<string> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    if (systemCode(cause) === undefined) throw cause;
    throw new DataError(`${file}: ${whyUnread(cause)}.`, {cause});
  });
  if (bytes.length === 0) throw new DataError(`${file}: the prompt is empty.`);
  if (!isUtf8(bytes)) {
    throw new DataError(`${file} is not UTF-8 text.`, {hint: 'Convert it, for example with iconv.'});
  }
  return bytes.toString('utf8');
}

interface SamplingFlags {
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly seed?: number | undefined;
}

/** Refuses what would do nothing where the likeliest token is taken, and what is no share. */
function samplingOf({temperature = 0, topK, topP, seed: given}: SamplingFlags): Sampling {
  if (temperature < 0) throw new UsageError(`--temperature is ${temperature}; 0 or more is needed.`);
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    throw new UsageError(`--top-p is ${topP}; a share above 0 and at most 1 is needed.`);
  }
  if (temperature !== 0) return {kind: 'random', temperature, topP: topP ?? 1, ...(topK !== undefined && {topK})};
  const idle = Object.entries({'top-k': topK, 'top-p': topP, seed: given}).find(([, value]) => value !== undefined);
  if (!idle) return {kind: 'greedy'};
  throw new UsageError(`--${idle[0]} does nothing at temperature 0, where the likeliest token is taken.`, {
    hint: 'Leave it out, or say --temperature 1.',
  });
}

/** Generates with a model by its name on the hub, or folder; a status line stands until the text begins. */
async function generateNamed(options: GenerateOptions, ui: Ui, onText: (text: string) => void): Promise<Generated> {
  const {generate} = await import('../../eval/generate.js');
  let stop: StopSignal | null = null;
  try {
    return await ui.withStatus(async (status) => {
      const model = await beginWith(options.model, status);
      const onEvent = (event: GenerateEvent): void => {
        if (event.kind === 'stage') status.update(event.text);
        else if (event.kind === 'warning') status.print(`warning: ${event.text}`);
        else if (event.kind === 'text') onText(event.text);
        else if (event.kind === 'ready') {
          status.finish();
          stop = listenForStop((signal) => {
            ui.exitCode = exitCodeOf(signal);
          });
        }
      };
      return generate({...options, model}, onEvent, () => stop?.requested() != null);
    });
  } finally {
    (stop as StopSignal | null)?.dispose();
  }
}

/** Starts the engine; the folder of the model. */
async function beginWith(name: string, status: StatusLine): Promise<string> {
  const [{folderOf}, {begin}, {engineSchema}] = await Promise.all([
    import('../../experiment/resolve-models.js'),
    import('../../experiment/begin.js'),
    import('../../engine/options.js'),
  ]);
  const show = showCompare(status);
  const model = await folderOf(name, show);
  await begin({engine: engineSchema.parse({})}, [model], show);
  return model;
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It must be a number such as 0.8.');
}
