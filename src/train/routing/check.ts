// What can be told of `train.routing` before a step is run.
import type {Architecture, FfnLayout} from '../../model/architecture.js';
import {ConfigError} from '../../util/errors.js';
import type {TrainOptions} from '../options.js';
import {numDropped} from './perturb.js';

type MoeLayout = Extract<FfnLayout, {kind: 'moe'}>;

/**
 * Refuses a way of routing that a model cannot be trained with.
 *
 * @throws ConfigError naming the key.
 */
export function requireRoutable({routing}: Pick<TrainOptions, 'routing'>, {ffn}: Architecture): void {
  const layouts = ffn.filter((layout) => layout.kind === 'moe');
  for (const layout of layouts) {
    if (routing.kind === 'expert-dropout') requireDroppable(routing.share, layout);
  }
}

function requireDroppable(share: number, {experts, topK}: MoeLayout): void {
  if (numDropped(share, experts, topK) > 0) return;
  throw new ConfigError(
    `train.routing.share: ${share} of ${experts} experts, of which a token uses ${topK}, leaves out none.`,
    {hint: topK < experts ? 'Raise it.' : 'Leave train.routing out: every token uses all of them.'},
  );
}

/** What a person should know of a way of routing, in words; null if nothing. */
export function routingNote({kind}: TrainOptions['routing'], {ffn}: Architecture): string | null {
  if (kind === 'as-is') return null;
  if (ffn.every((layout) => layout.kind === 'dense'))
    return `The model has no routers: train.routing (${kind}) is ignored.`;
  return null;
}
