import type {FfnLayout, Routing} from '../../model/architecture.js';

/** `2 of 8 experts 144 wide, with 1 of 5 inside each 48 wide, and a gated shared one 192 wide`; at most 2 with a top p. */
export function layoutText(layout: FfnLayout, {topP}: Pick<Routing, 'topP'>): string {
  if (layout.kind === 'dense') return `dense, ${layout.width} wide`;
  const {experts, topK, expertWidth, sharedWidth, sharedGate, expertBias, inner} = layout;
  const bias = expertBias ? ', each with a bias' : '';
  const shared = sharedWidth > 0 ? `, and a ${sharedGate ? 'gated ' : ''}shared one ${sharedWidth} wide` : '';
  const inside = inner ? `, with ${inner.topK} of ${inner.experts} inside each ${inner.expertWidth} wide` : '';
  const most = topP === undefined ? '' : 'at most ';
  return `${most}${topK} of ${experts} experts ${expertWidth} wide${bias}${inside}${shared}`;
}
