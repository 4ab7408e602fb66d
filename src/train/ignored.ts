// What a config says of experts where a model has none.
import type {Architecture} from '../model/architecture.js';
import type {TrainOptions} from './options.js';

/** What a run of a dense model takes no notice of, in words; null if nothing, or if there are experts. */
export function ignoredWithoutExperts(
  {routing, balance, capacity, optimizer}: Pick<TrainOptions, 'routing' | 'balance' | 'capacity' | 'optimizer'>,
  {ffn}: Architecture,
): string | null {
  if (ffn.some(({kind}) => kind === 'moe')) return null;
  const keys = [
    ...(routing.kind === 'as-is' ? [] : [`train.routing (${routing.kind})`]),
    ...(balance.kind === 'none' || balance.kind === 'aux' ? [] : [`train.balance (${balance.kind})`]), // aux is the default
    ...(capacity === 'dropless' ? [] : ['train.capacity']),
    ...(['routers', 'experts'] as const)
      .filter((part) => part in optimizer.rates)
      .map((part) => `train.optimizer.rates.${part}`),
  ];
  return keys.length === 0 ? null : `The model has no experts, so nothing comes of ${keys.join(', ')}.`;
}
