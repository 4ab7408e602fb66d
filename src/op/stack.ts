// Some members of a stack of matrices, such as some of a layer's experts.
import * as tf from '../engine/tfjs.js';

/** The members at `chosen` of a stack [E, ...], in that order: [chosen, ...]. */
export function takeMembers(stack: tf.Tensor, chosen: readonly number[]): tf.Tensor {
  return tf.gather(stack, tf.tensor1d([...chosen], 'int32'));
}

/** The stack [E, ...] with the members at `chosen` replaced by `members`, [chosen, ...]. */
export function putMembers(stack: tf.Tensor, chosen: readonly number[], members: tf.Tensor): tf.Tensor {
  const [E = 0, ...rest] = stack.shape;
  const places = Array.from({length: E}, (_, e) => chosen.indexOf(e));
  const isChosen = tf.tensor(
    places.map((place) => place >= 0),
    [E, ...rest.map(() => 1)],
    'bool',
  );
  return tf.where(
    isChosen,
    takeMembers(
      members,
      places.map((place) => Math.max(0, place)),
    ),
    stack,
  );
}
