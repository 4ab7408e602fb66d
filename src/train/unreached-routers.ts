import type {Architecture} from '../model/architecture.js';

/**
 * Why the language-model loss teaches the routers of a mixture nothing, in words; null if it does, or there are none.
 *
 * A router learns through the weights of what it chose; where those are 1 whatever the logits, only balance losses move it.
 */
export function unreachedRouters({ffn, routing}: Architecture): string | null {
  const layouts = ffn.flatMap((layout) => (layout.kind === 'moe' ? [layout] : []));
  if (layouts.length === 0) return null;
  const after = 'The language-model loss teaches the routers nothing, only balance losses move them:';
  if (routing.weight === 'one') return `${after} chosen experts weigh 1 (weights one).`;
  const {score, order, renormalise} = routing;
  const sumsToOne = renormalise || (order === 'topk-then-score' && score === 'softmax');
  const single = layouts.filter(({topK}) => topK === 1).length;
  if (sumsToOne && single > 0) {
    const where = single < layouts.length ? ` in ${single} of ${layouts.length} layers` : '';
    return `${after} one expert is chosen${where}, and weights are divided by their sum, so it weighs 1.`;
  }
  const isInner = layouts.some(({inner}) => inner?.weight === 'one');
  return isInner ? `${after} those inside experts, whose chosen experts weigh 1 (weights one).` : null;
}
