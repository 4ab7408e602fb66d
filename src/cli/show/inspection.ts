import type {
  ExperimentInspection,
  Inspection,
  ModelInspection,
  PreparedInspection,
  ProfileInspection,
  RunInspection,
  ShardInspection,
} from '../../experiment/inspect.js';
import type {Architecture} from '../../model/architecture.js';
import {formatCount, formatDuration, formatLoss} from '../../report/number.js';
import {textTable} from '../../report/table.js';
import {layoutText} from './layout.js';
import {type Line, lines} from './lines.js';
import {originText} from './origin.js';
import {profileText} from './profile.js';

/** What is shown besides the summary. */
export interface ShowOptions {
  /** Every tensor of a model, not only how many there are. */
  readonly tensors?: boolean;
}

/** What was found at a path, as lines of `topic  text`. */
export function inspectionText(inspection: Inspection, {tensors = false}: ShowOptions = {}): string {
  switch (inspection.kind) {
    case 'model':
      return [
        lines(modelLines(inspection)),
        ...originText(inspection),
        ...(tensors ? [tensorTable(inspection)] : []),
      ].join('\n\n');
    case 'run':
      return lines(runLines(inspection));
    case 'shard':
      return lines(shardLines(inspection));
    case 'prepared':
      return shardTable(inspection);
    case 'experiment':
      return runTable(inspection);
    case 'profile':
      return profileLines(inspection);
  }
}

function modelLines({path, architecture, parameters, tensors, bytes, dtypes, ...rest}: ModelInspection): Line[] {
  const {family, ffn, width, heads, kvHeads, headDim, vocab, contextLength, slidingWindow, tied} = architecture;
  const window = slidingWindow === null ? '' : `, window ${slidingWindow}`;
  const types = Object.entries(dtypes).map(([dtype, count]) => `${count} ${dtype}`);
  return [
    ['model', path],
    ['family', `${family}, ${ffn.length} layers, width ${width}, vocabulary ${vocab}${tied ? ', tied embedding' : ''}`],
    ['attention', `${heads} heads of ${headDim}, ${kvHeads} for keys and values, context ${contextLength}${window}`],
    ...layouts(architecture).map((text): Line => ['ffn', text]),
    [
      'params',
      `${formatCount(parameters.total)} in all, ${mostOf(architecture)}${formatCount(parameters.active)} active a token`,
    ],
    ['tensors', `${tensors.length} (${types.join(', ')}), ${(bytes / 1e6).toFixed(1)} MB`],
    tokenizerLine(rest.tokenizer),
    ...rest.warnings.map((text): Line => ['warning', text]),
  ];
}

function mostOf({routing}: Architecture): string {
  return routing.topP === undefined ? '' : 'at most ';
}

/** Each kind of FFN there is, with its layers. */
function layouts({ffn, routing}: Architecture): string[] {
  const texts = ffn.map((layout) => layoutText(layout, routing));
  return [...new Set(texts)].map((text) => {
    const layers = texts.flatMap((other, layer) => (other === text ? [layer] : []));
    return layers.length === ffn.length ? text : `${text}: layers ${layers.join(', ')}`;
  });
}

function tokenizerLine(tokenizer: ModelInspection['tokenizer']): Line {
  if (!tokenizer) return ['tokenizer', 'none: there is no tokenizer.json'];
  const {vocabSize, bosId, eosId, fingerprint} = tokenizer;
  return [
    'tokenizer',
    `${vocabSize} ids, begin ${bosId ?? '-'}, end ${eosId ?? '-'}, SHA-256 ${fingerprint.slice(0, 12)}`,
  ];
}

function tensorTable({tensors}: ModelInspection): string {
  const columns = ['tensor', 'dtype', 'shape'].map((title) => ({title, align: 'left' as const}));
  return textTable(
    columns,
    tensors.map(({name, dtype, shape}) => [name, dtype, `[${shape.join(', ')}]`]),
  );
}

function runLines({path, head, lastStep, evals, checkpoints, end}: RunInspection): Line[] {
  const {total, active} = head.parameters;
  const [first, last] = [evals[0], evals.at(-1)];
  return [
    ['run', path],
    ['arm', `${head.arm} of ${head.name}, seed ${head.seed}, config ${head.configHash.slice(0, 12)}`],
    ['device', head.device],
    ['params', `${formatCount(total)} in all, ${formatCount(active)} active a token`],
    ['step', lastStep ? `${lastStep.step}, ${formatCount(lastStep.tokens)} tokens, ${end ?? 'not ended'}` : 'none yet'],
    ...(lastStep
      ? [
          ['time', formatDuration(lastStep.seconds)] as const,
          ['loss', formatLoss(lastStep.loss ?? Number.NaN)] as const,
        ]
      : []),
    ...(first && last
      ? [['held out', `${loss(first)} at step ${first.step}, ${loss(last)} at step ${last.step}`] as const]
      : []),
    ['saved', checkpoints.length > 0 ? checkpoints.join(', ') : 'no checkpoint'],
  ];
}

function loss({loss: value}: {readonly loss: number | null}): string {
  return formatLoss(value ?? Number.NaN);
}

function shardLines({path, metadata, columns, bytes}: ShardInspection): Line[] {
  const {rows, sequenceLength, documents, source, licence, tokenizerSha256, formatVersion} = metadata;
  return [
    ['shard', `${path}, ${(bytes / 1e6).toFixed(1)} MB, format ${formatVersion}`],
    ['rows', `${rows} of ${sequenceLength} tokens and one more: ${formatCount(rows * sequenceLength)} to learn from`],
    ['columns', columns.join(', ')],
    ['source', `${source}, ${documents} documents, licence: ${licence}`],
    ['tokenizer', `SHA-256 ${tokenizerSha256.slice(0, 12)}`],
  ];
}

function shardTable({path, shards}: PreparedInspection): string {
  const columns = ['shard', 'rows', 'length', 'documents', 'licence'].map((title, i) => ({
    title,
    align: i === 0 || i === 4 ? ('left' as const) : ('right' as const),
  }));
  const rows = shards.map(({path: file, metadata: {rows: count, sequenceLength, documents, licence}}) => [
    file.slice(path.length).replace(/^[/\\]/, ''),
    ...[count, sequenceLength, documents].map(String),
    licence,
  ]);
  return textTable(columns, rows);
}

function runTable({path, runs}: ExperimentInspection): string {
  const columns = ['run', 'params', 'active', 'step', 'tokens', 'held out', 'state'].map((title, i) => ({
    title,
    align: i === 0 || i === 6 ? ('left' as const) : ('right' as const),
  }));
  const rows = runs.map(({path: run, head: {parameters}, lastStep, evals, end}) => [
    run.slice(path.length).replace(/^[/\\]/, ''),
    formatCount(parameters.total),
    formatCount(parameters.active),
    String(lastStep?.step ?? 0),
    formatCount(lastStep?.tokens ?? 0),
    formatLoss(evals.at(-1)?.loss ?? Number.NaN),
    end ?? 'not ended',
  ]);
  return textTable(columns, rows);
}

function profileLines({path, profile}: ProfileInspection): string {
  const {model} = profile.metadata;
  return [
    lines([
      ['profile', path],
      ['model', `${model.layers} layers of ${model.ffnWidth} neurons, fingerprint ${model.fingerprint.slice(0, 12)}`],
    ]),
    profileText(profile),
  ].join('\n\n');
}
