// Flags that say how an arm's model is made; each gives a key of the arm, and the config's schema checks it.
import {type Help, Option} from '@commander-js/extra-typings';
import type {ArmFlag} from '../config/arm-flags.js';
import {configJsonSchema, wordsOf} from '../config/json-schema.js';

/** The key of an arm that each flag gives, and what it is. */
const FLAGS = [
  ['--method <name>', 'method', 'how the mixture is made'],
  ['--experts <count>', 'experts', 'routed experts'],
  ['--shared <count>', 'shared', 'shared part, in units of one expert'],
  ['--top-k <count>', 'topK', 'routed experts that a token passes through'],
  ['--allocate <rule>', 'allocation', 'how the active experts are dealt out to the layers'],
  ['--router <kind>', 'router', 'what scores an expert'],
  ['--weights <kind>', 'weights', 'what the result of a chosen expert is multiplied with'],
  ['--output-scale <kind>', 'outputScale', 'whether the routed sum gets the size it had in the dense model'],
  ['--regroup <rounds>', 'regroup', 'how often neurons are dealt out anew by what a router chooses'],
  ['--repair <kind>', 'repair', 'whether down projections are fitted to the dense outputs'],
  ['--repair-weight <share>', 'repairWeight', 'how much a repair holds to the dense weights'],
  ['--shared-by <value>', 'sharedBy', 'which neurons expertweaver shares'],
  ['--keep-by <value>', 'keepBy', 'which neurons all-shared keeps'],
  ['--split <way>', 'split', 'how llama-moe cuts'],
  ['--shards <count>', 'shards', 'parts that granular-upcycle cuts the FFN into'],
  ['--pad', 'pad', 'append neurons of zeros where experts + shared do not divide the FFN width'],
] as const;

/** The flags as options of a command. */
export function armOptions(): Option[] {
  return FLAGS.map(([flags, , text]) => new Option(flags, text));
}

/** Those of the flags that were typed. */
export function armFlags(options: Readonly<Record<string, unknown>>): ArmFlag[] {
  return FLAGS.flatMap(([flags, key]) => {
    const option = new Option(flags);
    const value = options[option.attributeName()];
    return typeof value === 'string' || value === true ? [{flag: option.long ?? flags, key, value}] : [];
  });
}

/** What help says of a flag: of one that takes words, which; they are asked for late, for the schema takes a while. */
export const optionDescription: NonNullable<Help['optionDescription']> = ({long, description}) => {
  const key = FLAGS.find(([flags]) => flags.split(' ')[0] === long)?.[1];
  const words = key === undefined ? [] : wordsOf(key, configJsonSchema());
  return words.length > 0 ? `${description}: ${words.join(', ')}` : description;
};
