import {type Architecture, type MoeLayout, moeLayouts, type Routing} from '../model/architecture.js';

/**
 * Which routers of a mixture the language-model loss teaches nothing, and why, in words; null if there are none.
 *
 * A router learns through the weights of what it chose: where those are 1 whatever the logits, only balance losses move
 * it, and nothing moves a router inside an expert.
 */
export function unreachedRouters(architecture: Architecture): string | null {
  const layouts = moeLayouts(architecture);
  const notes = [outerNote(layouts, architecture.routing), innerNote(layouts)].filter((note) => note !== null);
  return notes.length === 0 ? null : notes.join(' ');
}

function outerNote(layouts: readonly MoeLayout[], routing: Routing): string | null {
  const unreached = layouts.filter((layout) => weighsOne(layout, routing)).length;
  if (unreached === 0) return null;
  const which = unreached < layouts.length ? `of ${unreached} of ${layouts.length} layers ` : '';
  const why =
    routing.weight === 'one'
      ? 'chosen experts weigh 1 (weights one)'
      : 'the weight of one expert over its own sum is 1';
  return `The language-model loss teaches the routers ${which}nothing, only balance losses move them: ${why}.`;
}

function innerNote(layouts: readonly MoeLayout[]): string | null {
  const isUnreached = layouts.some(({inner}) => inner && (inner.weight === 'one' || inner.experts === 1));
  return isUnreached ? 'Nothing moves the routers inside experts: what they choose weighs 1.' : null;
}

/** Whether what a router chose weighs the same whatever its logits are. */
function weighsOne({experts, topK}: MoeLayout, {weight, score, order, renormalise}: Routing): boolean {
  if (weight === 'one') return true;
  const isOnly = experts === 1 && score === 'softmax';
  return isOnly || (topK === 1 && (renormalise || (order === 'topk-then-score' && score === 'softmax')));
}
