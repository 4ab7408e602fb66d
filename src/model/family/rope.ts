// The keys of a config that say how positions are turned: `rope_theta` and `rope_scaling`, or in one `rope_parameters`.
import {z} from 'zod';
import type {Architecture} from '../architecture.js';
import {type RopeScaling, yarnAmplitude} from '../rope-frequencies.js';
import type {ConfigRecord} from './definition.js';
import {positive, size} from './number.js';

/** A rotation of a part of each head is not computed. */
export const wholeRotation = z.literal(1, {error: 'only 1 is supported, all of a head is rotated'}).optional();

const KINDS = ['default', 'linear', 'llama3', 'yarn'] as const;
const kind = z.enum(KINDS, {error: `only ${KINDS.map((name) => `"${name}"`).join(', ')} are supported`}).optional();

/** What each kind of scaling cannot do without. */
const NEEDED = {
  default: [],
  linear: ['factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'],
  yarn: ['factor', 'original_max_position_embeddings'],
} as const;

const sectionSchema = z
  .looseObject(
    {
      rope_theta: positive.optional(),
      rope_type: kind,
      type: kind, // what transformers before 4.43 called rope_type
      partial_rotary_factor: wholeRotation,
      factor: positive.optional(),
      low_freq_factor: positive.optional(),
      high_freq_factor: positive.optional(),
      original_max_position_embeddings: size.optional(),
      beta_fast: positive.optional(),
      beta_slow: positive.optional(),
      attention_factor: positive.optional(),
      truncate: z.boolean('true or false is needed').default(true),
      mscale: z.undefined('it is not supported, only attention_factor').optional(),
      mscale_all_dim: z.undefined('it is not supported, only attention_factor').optional(),
    },
    {error: 'an object or null is needed'},
  )
  .superRefine((keys, context) => {
    for (const key of NEEDED[keys.rope_type ?? keys.type ?? 'default']) {
      if (keys[key] !== undefined) continue;
      context.addIssue({code: 'custom', path: [key], message: `this kind of scaling needs it`, input: keys});
    }
  });

type Section = z.output<typeof sectionSchema>;

/** The keys, in either form. */
export const ropeFields = {
  rope_theta: positive.optional(),
  rope_scaling: sectionSchema.optional(),
  rope_parameters: sectionSchema.optional(),
  partial_rotary_factor: wholeRotation,
};

type RopeKeys = z.output<z.ZodObject<typeof ropeFields>>;

/** What the keys say. */
export function ropeOf({
  rope_theta,
  rope_scaling,
  rope_parameters,
}: RopeKeys): Pick<Architecture, 'ropeTheta' | 'ropeScaling'> {
  const section = rope_parameters ?? rope_scaling;
  const ropeScaling = section && scalingOf(section);
  return {
    ropeTheta: rope_parameters?.rope_theta ?? rope_theta ?? 10_000,
    ...(ropeScaling && {ropeScaling}),
  };
}

/** The keys of an architecture, in the form (transformers 4 or 5) of `source`; a section of it that says the same is kept. */
export function ropeKeys({ropeTheta, ropeScaling}: Architecture, source: ConfigRecord): ConfigRecord {
  const {rope_parameters: parameters, rope_scaling: scaling} = source;
  if (isRecord(parameters)) return {rope_parameters: {...sectionOf(parameters, ropeScaling), rope_theta: ropeTheta}};
  const isSaid = isRecord(scaling) || ropeScaling !== undefined;
  return {rope_theta: ropeTheta, ...(isSaid && {rope_scaling: sectionOf(scaling, ropeScaling)})};
}

function sectionOf(source: unknown, scaling: RopeScaling | undefined): ConfigRecord {
  const read = sectionSchema.safeParse(source);
  const isSame = read.success && JSON.stringify(scalingOf(read.data)) === JSON.stringify(scaling);
  if (isSame && isRecord(source)) return source;
  switch (scaling?.kind) {
    case undefined:
      return {rope_type: 'default'};
    case 'linear':
      return {rope_type: 'linear', factor: scaling.factor};
    case 'llama3':
      return {
        rope_type: 'llama3',
        factor: scaling.factor,
        low_freq_factor: scaling.lowTurns,
        high_freq_factor: scaling.highTurns,
        original_max_position_embeddings: scaling.firstContext,
      };
    case 'yarn':
      return {
        rope_type: 'yarn',
        factor: scaling.factor,
        beta_slow: scaling.slowTurns,
        beta_fast: scaling.fastTurns,
        original_max_position_embeddings: scaling.firstContext,
        attention_factor: scaling.amplitude,
        truncate: scaling.truncate,
      };
  }
}

function scalingOf(section: Section): RopeScaling | undefined {
  const {factor = 1, original_max_position_embeddings: firstContext = 1} = section;
  switch (section.rope_type ?? section.type ?? 'default') {
    case 'default':
      return undefined;
    case 'linear':
      return {kind: 'linear', factor};
    case 'llama3': {
      const {low_freq_factor: lowTurns = 1, high_freq_factor: highTurns = 1} = section;
      return {kind: 'llama3', factor, lowTurns, highTurns, firstContext};
    }
    case 'yarn': {
      const {beta_slow: slowTurns = 1, beta_fast: fastTurns = 32, truncate} = section;
      const amplitude = section.attention_factor ?? yarnAmplitude(factor);
      return {kind: 'yarn', factor, slowTurns, fastTurns, firstContext, amplitude, truncate};
    }
  }
}

/** Whether a value of a config is a section of keys. */
export function isRecord(value: unknown): value is ConfigRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
