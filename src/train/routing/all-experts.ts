// Every expert for every token while only routers learn: the first stage of DIVE (arXiv 2506.09351).
import * as tf from '../../engine/tfjs.js';
import {type Routed, type RouterInput, routerLogits} from '../../model/router.js';
import {untaped} from '../../op/untaped.js';

/** Sends each token to all experts, weighed by `softmax(logits / temperature)`: the colder, the nearer to one of them. */
export function allExperts({x_TD, params, layout, routing: {scale}}: RouterInput, temperature: number): Routed {
  const logit_TE = routerLogits(x_TD, params, layout);
  const score_TE = tf.softmax(tf.div(logit_TE, temperature) as tf.Tensor2D);
  const [T, E] = score_TE.shape;
  const expert_TK = untaped(() => tf.tile(tf.range(0, E, 1, 'int32').reshape([1, E]), [T, 1])) as tf.Tensor2D;
  const weight_TK: tf.Tensor2D = scale === 1 ? score_TE : tf.mul(score_TE, scale);
  return {logit_TE, route: {expert_TK, weight_TK, score_TE}};
}
