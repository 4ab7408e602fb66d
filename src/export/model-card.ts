// README.md of an exported folder: what it is, where it came from, how close it is to that, how it is run.
import {join, resolve} from 'node:path';
import type {Provenance} from '../downcycle/provenance.js';
import {type Architecture, countParameters, moeLayouts} from '../model/architecture.js';
import {sideBySide} from '../report/chart.js';
import {lossCharts} from '../report/figures.js';
import {formatCount, formatLoss} from '../report/number.js';
import {readReportRun} from '../report/read-run.js';
import {drawSpec} from '../report/render.js';
import {groupArms, type ReportRun} from '../report/runs.js';
import {summarise} from '../report/summary.js';
import {LIGHT} from '../report/theme.js';
import {writeFileAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {formatPercent} from '../util/percent.js';
import type {ManifestFields} from './manifest.js';
import {publicName} from './public-name.js';

/** What a card tells. */
interface CardSource {
  readonly fields: ManifestFields;
  /** Folder that was exported. */
  readonly model: string;
  readonly name: string;
  readonly architecture: Architecture;
  /** Null where the folder has no record. */
  readonly provenance: Provenance | null;
}

const LOSSES = 'losses.svg';
const LOG = 'log.jsonl';

/** Writes the model card, and beside it the loss curves of the run that the model is a checkpoint of, if it is one. */
export async function writeCard(folder: string, source: CardSource): Promise<void> {
  const training = await trainingOf(source.model);
  if (training) await writeFileAtomic(join(folder, LOSSES), `${training.svg}\n`);
  await writeFileAtomic(join(folder, 'README.md'), cardText(source, training?.text ?? null));
}

interface Training {
  readonly svg: string;
  readonly text: string;
}

/** The run whose checkpoint holds the model, up to that checkpoint, drawn and in words; null if it is none, or its log tells nothing. */
async function trainingOf(model: string): Promise<Training | null> {
  const [, run, step] = /^(.+)[/\\]step-(\d{6,})[/\\]model$/.exec(resolve(model)) ?? [];
  if (run === undefined || !(await exists(join(run, LOG)))) return null;
  const whole = await readReportRun(run).catch((error: unknown) => {
    if (error instanceof DataError) return null; // a torn log is no reason to go without the model
    throw error;
  });
  if (!whole) return null;
  const arms = groupArms([upTo(whole, Number(step))]);
  const {svg} = await drawSpec(sideBySide(lossCharts(arms, {x: 'tokens', smoothing: 0.9}), LIGHT), 'losses');
  const [row] = summarise(arms).rows;
  const losses =
    row && row.firstLoss !== null && row.lastLoss !== null
      ? ` Held-out loss went from ${formatLoss(row.firstLoss)} to ${formatLoss(row.lastLoss)}.`
      : '';
  return {svg, text: `Trained on ${formatCount(row?.tokens ?? 0)} tokens.${losses}\n\n![loss curves](${LOSSES})`};
}

function upTo(run: ReportRun, last: number): ReportRun {
  const cut = (curve: ReportRun['train']): ReportRun['train'] => ({
    ...curve,
    points: curve.points.filter(({step}) => step <= last),
  });
  return {...run, train: cut(run.train), validation: cut(run.validation)};
}

function cardText({fields, name, architecture, provenance}: CardSource, training: string | null): string {
  const {target, command, source} = fields;
  const {total, active} = countParameters(architecture);
  const sections = [
    `# ${name}`,
    `A mixture of experts that transformers runs as \`${target}\`: ${formatCount(total)} parameters, ${formatCount(active)} of them active for a token.`,
    layersTable(architecture),
    '## Origin',
    originText(provenance, source.name),
    ...(training === null ? [] : ['## Training', training]),
    '## How close it is to what was exported',
    fidelityText(fields),
    '## Use',
    usage(name),
    '## Made with',
    `\`\`\`\n${command}\n\`\`\``,
  ];
  return `${FRONT_MATTER}\n${sections.join('\n\n')}\n`;
}

const FRONT_MATTER = `---
library_name: transformers
pipeline_tag: text-generation
tags:
- mixture-of-experts
- downcycle
---
`;

function layersTable(architecture: Architecture): string {
  const layouts = moeLayouts(architecture);
  const [layout] = layouts;
  if (!layout) return '';
  const rows = [
    ['layers with experts', `${layouts.length} of ${architecture.ffn.length}`],
    ['routed experts a layer', layout.experts],
    ['of which a token uses', layout.topK],
    ['neurons of a routed expert', layout.expertWidth],
    ['neurons of the shared expert', layout.sharedWidth],
  ];
  return ['| | |', '|---|---|', ...rows.map(([what, value]) => `| ${what} | ${value} |`)].join('\n');
}

function originText(provenance: Provenance | null, name: string): string {
  if (!provenance) return `Exported from ${name}, which has no record of where it came from.`;
  if (provenance.kind === 'scratch') return 'Drawn at random, not made from another model.';
  const {method, source, seed, versions} = provenance;
  const verb = {
    split: 'cut out of',
    'inner-split': 'cut out of the experts of',
    upcycle: 'copied from',
    prune: 'made of pruned copies of',
  }[provenance.kind];
  const lines = [
    `Its experts were ${verb} **${publicName(source.path)}**${source.revision === null ? '' : ` (revision ${source.revision})`} by downcycle ${versions.downcycle}, method \`${method.method}\`, seed ${seed}.`,
    `Options: \`${JSON.stringify(method, (key, value: unknown) => (key === 'from' && typeof value === 'string' ? publicName(value) : value))}\`.`,
  ];
  if ('calibration' in provenance && provenance.calibration) {
    const {tasks, options} = provenance.calibration;
    lines.push(
      `Calibrated on ${tasks.join(', ')}: ${options.samplesPerTask} samples of ${options.tokensPerSample} tokens each.`,
    );
  }
  if (provenance.trained) lines.push('Its weights were trained since.');
  return lines.join('\n\n');
}

function fidelityText({fidelity, approximation, rewritings, dtype}: ManifestFields): string {
  const {text, tokens, maxLogitDifference, meanLogitDifference, kl, sameToken} = fidelity;
  const what =
    approximation === null ? 'computes what its source does' : `is close to its source, not equal: it ${approximation}`;
  const rows = [
    ['largest difference of a logit', maxLogitDifference.toExponential(1)],
    ['mean difference of a logit', meanLogitDifference.toExponential(1)],
    ['KL divergence a token', `${kl.toExponential(1)} nats`],
    ['same likeliest token', formatPercent(sameToken)],
  ];
  return [
    `The export ${what}. Measured in float32 on ${tokens} tokens (${text}); matrices are stored as ${dtype}, and running in bfloat16 rounds further.`,
    ['| | |', '|---|---|', ...rows.map(([name, value]) => `| ${name} | ${value} |`)].join('\n'),
    ...(rewritings.length === 0 ? [] : [`What was rewritten:\n\n${rewritings.map((says) => `- ${says}`).join('\n')}`]),
  ].join('\n\n');
}

function usage(name: string): string {
  return `\`\`\`python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("${name}")
tokenizer = AutoTokenizer.from_pretrained("${name}")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=40)[0]))
\`\`\``;
}
