// config.json of Hugging Face folders, dense and ours, to and from an Architecture.
import {z} from 'zod';
import {DTYPE_WORDS, type FloatDtype} from '../format/dtype.js';
import {ModelError} from '../util/errors.js';
import type {Architecture, Family, FfnLayout, InnerLayout, Routing} from './architecture.js';
import type {ConfigRecord} from './family/definition.js';
import {parseKeys} from './family/keys.js';
import {describeKnown, FAMILIES, isFamily} from './family/registry.js';

/** The `model_type` of a mixture of experts in the form of this project. */
const MOE_MODEL_TYPE = 'downcycle_moe';
const MOE_CLASS = 'DowncycleMoeForCausalLM';
/** Our own section is written anew, and code is not copied. */
const NOT_KEPT = new Set(['moe', 'auto_map']);
const FAMILY_NAMES = Object.keys(FAMILIES) as Family[];

const count = z.int('a whole number above 0 is needed').positive('a whole number above 0 is needed');
const flag = z.boolean('true or false is needed');
const chooses = {
  check: ({experts, top_k}: {experts: number; top_k: number}): boolean => top_k <= experts,
  says: {error: 'it must be at most experts', path: ['top_k']},
};
const innerWeight = z.enum(['score', 'one'], {error: '"score" or "one" is needed'});
const WEIGHTS = ['score', 'one', 'one-plus-scaled'] as const;
const weight = z.enum(WEIGHTS, {error: '"score", "one" or "one-plus-scaled" is needed'});
const ROUTERS = ['linear', 'representative', 'mlp', 'cosine', 'autonomy'] as const;
const innerSchema = z
  .strictObject({experts: count, top_k: count, expert_width: count, weight: innerWeight})
  .refine(chooses.check, chooses.says);
const moeLayerSchema = z
  .strictObject({
    experts: count,
    top_k: count,
    expert_width: count,
    shared_width: z.int('a whole number is needed').nonnegative('0 or more is needed'),
    selection_bias: flag,
    router: z
      .enum(ROUTERS, {error: '"linear", "representative", "mlp", "cosine" or "autonomy" is needed'})
      .default('linear'),
    temperature: z.number('a number is needed').positive('a number above 0 is needed').optional(),
    rank: count.optional(),
    shared_gate: flag.optional(),
    expert_bias: flag.optional(),
    inner: innerSchema.optional(),
  })
  .refine(chooses.check, chooses.says)
  .refine(({router, temperature}) => (router === 'cosine') === (temperature !== undefined), {
    error: 'a cosine router has a temperature, and no other',
    path: ['temperature'],
  })
  .refine(({router, rank}) => (router === 'autonomy') === (rank !== undefined), {
    error: 'an autonomy router has a rank, and no other',
    path: ['rank'],
  })
  .refine(({shared_gate, shared_width}) => !shared_gate || shared_width > 0, {
    error: 'a gate needs a shared expert, and shared_width is 0',
    path: ['shared_gate'],
  });
const layerSchema = z.union([moeLayerSchema, z.strictObject({width: count})], {
  error:
    'a layer has {width}, or {experts, top_k, expert_width, shared_width, selection_bias} with top_k at most experts, a temperature if its router is cosine, a rank if it is autonomy and a shared_gate only where shared_width is above 0; experts inside experts have {experts, top_k, expert_width, weight}',
});
const moeSchema = z
  .strictObject({
    source_model_type: z.enum(FAMILY_NAMES, {error: ({input}) => describeKnown(input, FAMILY_NAMES)}),
    routing: z.strictObject({
      score: z.enum(['softmax', 'sigmoid'], {error: '"softmax" or "sigmoid" is needed'}),
      order: z.enum(['score-then-topk', 'topk-then-score'], {
        error: '"score-then-topk" or "topk-then-score" is needed',
      }),
      renormalise: flag,
      scale: z.number('a number is needed'),
      weight,
      top_p: z
        .number('a number is needed')
        .gt(0, 'a number above 0 is needed')
        .max(1, 'at most 1 is needed')
        .optional(),
      reach: z.number('a number is needed').positive('a number above 0 is needed').optional(),
    }),
    layers: z.array(layerSchema, {error: 'a list with one entry a layer is needed'}),
  })
  .refine(
    ({routing}) => routing.top_p === undefined || (routing.score === 'softmax' && routing.order === 'score-then-topk'),
    {
      error: 'top_p sums what softmax gives over all experts: it needs score "softmax" and order "score-then-topk"',
      path: ['routing', 'top_p'],
    },
  )
  .refine(
    ({routing, layers}) => routing.top_p === undefined || !layers.some((layer) => 'inner' in layer && layer.inner),
    {
      error: 'top_p does not go with experts inside experts',
      path: ['routing', 'top_p'],
    },
  )
  .refine(({routing}) => routing.reach === undefined || isPlainSoftmax(routing), {
    error:
      'reach says how experts are weighed: it needs score "softmax", order "score-then-topk", weight "score", renormalise false and no top_p',
    path: ['routing', 'reach'],
  })
  .refine(
    ({routing, layers}) =>
      routing.reach === undefined || !layers.some((layer) => 'experts' in layer && layer.selection_bias),
    {error: 'reach does not go with selection biases', path: ['routing', 'reach']},
  );
const sectionSchema = z.looseObject({moe: moeSchema});

/**
 * The architecture that a `config.json` describes: a known family's, or `downcycle_moe`.
 *
 * Takes the keys of transformers 4 (`rope_theta`) and 5 (`rope_parameters`); null counts as absent.
 * @param file path of the config, for messages.
 * @throws ModelError naming the file and the key that is missing, wrong or not supported.
 */
export function architectureFromConfig(config: ConfigRecord, file: string): Architecture {
  const {model_type: modelType} = config;
  if (modelType === MOE_MODEL_TYPE) return moeArchitecture(config, file);
  refuseCode(config, file);
  if (isFamily(modelType)) return FAMILIES[modelType].readConfig(config, file);
  const known = describeKnown(modelType, [...FAMILY_NAMES, MOE_MODEL_TYPE]);
  throw new ModelError(`${file}: model_type is ${JSON.stringify(modelType) ?? 'missing'}; ${known}.`);
}

/** A model that brings code computes what that code says, whatever family it names. */
function refuseCode({auto_map: map}: ConfigRecord, file: string): void {
  if (typeof map !== 'object' || map === null) return;
  const code = Object.entries(map).find(([name]) => name.startsWith('AutoModel'));
  if (!code) return;
  throw new ModelError(
    `${file}: the model brings code of its own (auto_map: ${code[0]} is ${String(code[1])}), which is not run.`,
    {
      hint: 'If its weights are those of a family that is known without that code, take auto_map out of config.json.',
    },
  );
}

/**
 * The `config.json` of an architecture. Keys of `source` that say nothing about it (token ids, dtype, ...) are kept.
 *
 * Layers that are all dense and equally wide, or in a family of mixtures what it has words for, make a config of the family
 * itself; anything else is `downcycle_moe`.
 */
export function architectureToConfig(architecture: Architecture, source: ConfigRecord = {}): ConfigRecord {
  const {family, ffn} = architecture;
  const {className, configKeys, saysExperts} = FAMILIES[family];
  const width = denseWidth(ffn);
  const {intermediate_size: before} = source;
  const keys = configKeys(architecture, width ?? (typeof before === 'number' ? before : widest(ffn)), source);
  const kept = Object.fromEntries(Object.entries(source).filter(([key]) => !NOT_KEPT.has(key)));
  const isOwn = saysExperts ? saysExperts(architecture) : width !== null;
  if (isOwn) return {...kept, architectures: [className], model_type: family, ...keys};
  return {...kept, architectures: [MOE_CLASS], model_type: MOE_MODEL_TYPE, ...keys, moe: moeSection(architecture)};
}

/** The config with its dtype said, under the key that it has for it (`dtype`, before transformers 5 `torch_dtype`). */
export function withDtype(config: ConfigRecord, dtype: FloatDtype): ConfigRecord {
  return {...config, ['dtype' in config ? 'dtype' : 'torch_dtype']: DTYPE_WORDS[dtype]};
}

function moeArchitecture(config: ConfigRecord, file: string): Architecture {
  const {moe} = parseKeys(sectionSchema, config, file);
  const dense = FAMILIES[moe.source_model_type].readConfig(config, file);
  const numLayers = dense.ffn.length;
  if (moe.layers.length !== numLayers) {
    throw new ModelError(`${file}: moe.layers has ${moe.layers.length} entries, num_hidden_layers is ${numLayers}.`);
  }
  return {...dense, ffn: moe.layers.map(layoutOf), routing: routingOf(moe.routing)};
}

function routingOf({top_p, reach, ...words}: z.output<typeof moeSchema>['routing']): Routing {
  return {...words, ...(top_p !== undefined && {topP: top_p}), ...(reach !== undefined && {reach})};
}

interface ScoreWords extends Pick<Routing, 'score' | 'order' | 'weight' | 'renormalise'> {
  readonly top_p?: number | undefined;
}

function isPlainSoftmax({score, order, weight: by, renormalise, top_p: mass}: ScoreWords): boolean {
  return score === 'softmax' && order === 'score-then-topk' && by === 'score' && !renormalise && mass === undefined;
}

function layoutOf(layer: z.output<typeof layerSchema>): FfnLayout {
  if ('width' in layer) return {kind: 'dense', width: layer.width};
  return {
    kind: 'moe',
    experts: layer.experts,
    topK: layer.top_k,
    expertWidth: layer.expert_width,
    sharedWidth: layer.shared_width,
    selectionBias: layer.selection_bias,
    router: layer.router,
    ...(layer.temperature !== undefined && {temperature: layer.temperature}),
    ...(layer.rank !== undefined && {rank: layer.rank}),
    ...(layer.shared_gate && {sharedGate: true}),
    ...(layer.expert_bias && {expertBias: true}),
    ...(layer.inner && {inner: innerOf(layer.inner)}),
  };
}

function innerOf({experts, top_k, expert_width, weight}: z.output<typeof innerSchema>): InnerLayout {
  return {experts, topK: top_k, expertWidth: expert_width, weight};
}

function innerSection({experts, topK, expertWidth, weight}: InnerLayout): z.output<typeof innerSchema> {
  return {experts, top_k: topK, expert_width: expertWidth, weight};
}

function moeSection({family, ffn, routing}: Architecture): z.output<typeof moeSchema> {
  const {score, order, renormalise, scale, weight, topP, reach} = routing;
  return {
    source_model_type: family,
    routing: {
      ...{score, order, renormalise, scale, weight},
      ...(topP !== undefined && {top_p: topP}),
      ...(reach !== undefined && {reach}),
    },
    layers: ffn.map((layout) =>
      layout.kind === 'dense'
        ? {width: layout.width}
        : {
            experts: layout.experts,
            top_k: layout.topK,
            expert_width: layout.expertWidth,
            shared_width: layout.sharedWidth,
            selection_bias: layout.selectionBias,
            router: layout.router,
            ...(layout.temperature !== undefined && {temperature: layout.temperature}),
            ...(layout.rank !== undefined && {rank: layout.rank}),
            ...(layout.sharedGate && {shared_gate: true}),
            ...(layout.expertBias && {expert_bias: true}),
            ...(layout.inner && {inner: innerSection(layout.inner)}),
          },
    ),
  };
}

/** The common width of layers that are all dense, else null. */
function denseWidth(ffn: readonly FfnLayout[]): number | null {
  const [first] = ffn;
  if (first?.kind !== 'dense') return null;
  return ffn.every((layout) => layout.kind === 'dense' && layout.width === first.width) ? first.width : null;
}

function widest(ffn: readonly FfnLayout[]): number {
  const width = (layout: FfnLayout): number => {
    if (layout.kind === 'dense') return layout.width;
    const {sharedWidth, experts, expertWidth, inner} = layout;
    return sharedWidth + experts * (expertWidth + (inner ? inner.experts * inner.expertWidth : 0));
  };
  return Math.max(...ffn.map(width));
}
