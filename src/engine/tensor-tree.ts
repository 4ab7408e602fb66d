import * as tf from './tfjs.js';

/** Tensors in arrays and records, nested as the caller likes. */
export type TensorTree = tf.Tensor | readonly TensorTree[] | {readonly [key: string]: TensorTree};

/** The tensors of a tree, depth first, in the order of keys. */
export function flattenTree(tree: TensorTree): tf.Tensor[] {
  if (tree instanceof tf.Tensor) return [tree];
  return Object.values(tree).flatMap(flattenTree);
}

/** The same tree with other tensors, taken in the order of {@link flattenTree}. */
export function rebuildTree<T extends TensorTree>(tree: T, tensors: readonly tf.Tensor[]): T {
  const queue = [...tensors];
  const rebuild = (node: TensorTree): TensorTree => {
    if (node instanceof tf.Tensor) {
      const next = queue.shift();
      if (!next) throw new Error('too few tensors for the tree');
      return next;
    }
    if (Array.isArray(node)) return node.map(rebuild);
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, rebuild(value)]));
  };
  return rebuild(tree) as T;
}
