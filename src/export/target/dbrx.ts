import type {Architecture} from '../../model/architecture.js';
import {attentionTricks} from '../attention.js';
import {Inexpressible, type Target, type Trick} from '../plan.js';
import {untie} from '../trick/head.js';
import {softmaxTricks} from './softmax.js';

/** OLMo attention; softmax weights as they are or over their sum, no shared expert, and a head of its own. */
export const DBRX_TARGET: Target = {
  family: 'dbrx',
  attention: (architecture) => {
    const tricks = attentionTricks(architecture, {
      norm: {kind: 'layer', placement: 'before'},
      qkNorm: ['none'],
      attentionBias: ['none'],
      clips: true,
    });
    refuseOtherHeads(architecture);
    return [...tricks, ...clipFar(architecture), ...untie(architecture)];
  },
  experts: (architecture) => softmaxTricks(architecture, {shared: 'folded', denseLayers: false, plainSoftmax: true}),
};

/** @throws Inexpressible if heads are not as wide as the model over their number. */
function refuseOtherHeads({width, heads, headDim}: Architecture): void {
  if (heads * headDim === width) return;
  throw new Inexpressible(`its ${heads} heads are ${headDim} wide, and those of the family ${width}/${heads}`);
}

/** Torch refuses to clip numbers of float16 at a larger one. */
const FAR = 65_504;

/** Transformers runs no model of the family without a clip. */
function clipFar({qkvClip}: Architecture): Trick[] {
  if (qkvClip !== null) return [];
  return [
    {
      says: `clips queries, keys and values at ${FAR}, the largest number of float16, since the family always clips`,
      fidelity: 'exact',
      apply: (draft) => ({...draft, architecture: {...draft.architecture, qkvClip: FAR}}),
    },
  ];
}
