import {expect, it} from 'vitest';
import {flattenTree, rebuildTree} from '../../src/engine/tensor-tree.js';
import {runningEngines, withEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

it('a tree is rebuilt from its leaves in the order they were taken', () =>
  withEngine(runningEngines()[0]!, () => {
    const [a, b, c, d] = [1, 2, 3, 4].map((value) => tf.scalar(value)) as [tf.Scalar, tf.Scalar, tf.Scalar, tf.Scalar];
    const tree = {z: a, list: [b, {inner: c}], empty: [], a: d};
    expect(flattenTree(tree)).toEqual([a, b, c, d]);
    const doubled = rebuildTree(
      tree,
      flattenTree(tree).map((x) => tf.mul(x, 2)),
    );
    expect(flattenTree(doubled).map((x) => x.dataSync()[0])).toEqual([2, 4, 6, 8]);
    expect(Object.keys(doubled)).toEqual(['z', 'list', 'empty', 'a']);
    expect(flattenTree(a)).toEqual([a]);
    expect(() => rebuildTree(tree, [a, b])).toThrow('too few tensors');
    tf.dispose([tree, doubled]);
  }));
