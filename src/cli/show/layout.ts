import type {FfnLayout} from '../../model/architecture.js';

/** `2 of 8 experts 384 wide, and a shared one 192 wide`. */
export function layoutText(layout: FfnLayout): string {
  if (layout.kind === 'dense') return `dense, ${layout.width} wide`;
  const {experts, topK, expertWidth, sharedWidth, expertBias} = layout;
  const bias = expertBias ? ', each with a bias' : '';
  const shared = sharedWidth > 0 ? `, and a shared one ${sharedWidth} wide` : '';
  return `${topK} of ${experts} experts ${expertWidth} wide${bias}${shared}`;
}
