// What a config says of parts that a model does not have.
import type {Architecture} from '../model/architecture.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';
import type {TrainOptions} from './options.js';
import {type Part, partOf} from './part.js';

/** What a run of a dense model takes no notice of, in words; null if nothing, or if there are experts. */
export function ignoredWithoutExperts(
  {routing, balance, capacity}: Pick<TrainOptions, 'routing' | 'balance' | 'capacity'>,
  {ffn}: Architecture,
): string | null {
  if (ffn.some(({kind}) => kind === 'moe')) return null;
  const keys = [
    ...(routing.kind === 'as-is' ? [] : [`train.routing (${routing.kind})`]),
    ...(balance.kind === 'none' || balance.kind === 'aux' ? [] : [`train.balance (${balance.kind})`]), // aux is the default
    ...(capacity === 'dropless' ? [] : ['train.capacity']),
  ];
  return keys.length === 0 ? null : `The model has no experts, so nothing comes of ${keys.join(', ')}.`;
}

/** Learning rates of parts that a model does not have, in words; null if it has them all. */
export function ignoredRates({rates}: TrainOptions['optimizer'], architecture: Architecture): string | null {
  const parts = new Set(leavesOf(parameterSpecs(architecture)).map(partOf));
  const absent = (Object.keys(rates) as Part[]).filter((part) => !parts.has(part));
  return absent.length === 0
    ? null
    : `The model has no ${absent.join(', ')}: nothing comes of train.optimizer.rates for them.`;
}
