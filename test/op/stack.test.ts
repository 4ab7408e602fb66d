import {describe, expect} from 'vitest';
import {putMembers, takeMembers} from '../../src/op/stack.js';
import {onEveryEngine} from '../support/engines.js';
import {normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const SIZE = 3 * 2;
const member = (values: ArrayLike<number>, e: number): number[] => Array.from(values).slice(e * SIZE, (e + 1) * SIZE);

describe('members of a stack', () => {
  onEveryEngine('are taken in the order they are named in', async ({run}) => {
    const stack = normals([5, 3, 2], 1);
    const [taken] = await run((s: tf.Tensor) => takeMembers(s, [4, 1]), stack);
    expect(taken!.shape).toEqual([2, 3, 2]);
    expect(Array.from(taken!.values)).toEqual([...member(stack.values, 4), ...member(stack.values, 1)]);
  });

  onEveryEngine('are put back, the others unchanged to the bit', async ({run}) => {
    const [stack, members] = [normals([5, 3, 2], 1), normals([2, 3, 2], 2)];
    const [after] = await run((s: tf.Tensor, m: tf.Tensor) => putMembers(s, [1, 4], m), stack, members);
    const expected = [0, 1, 2, 3, 4].flatMap((e) =>
      e === 1 ? member(members.values, 0) : e === 4 ? member(members.values, 1) : member(stack.values, e),
    );
    expect(Array.from(after!.values)).toEqual(expected);
  });
});
