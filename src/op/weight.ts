// Weights with a low-rank term beside them (LoRA, Hu et al. 2022, arXiv 2106.09685).
import * as tf from '../engine/tfjs.js';
import {MATRIX} from './mat-mul.js';
import {multiplied, type Product, swigluMultiplied} from './product.js';
import {randomUniform} from './random.js';
import {swiglu} from './swiglu.js';

/** A parameter as a forward pass uses it: a tensor, or one with a low-rank term. */
export type Weight<W extends tf.Tensor = tf.Tensor> = W | LowRank<W>;

/** `base + scale · a·b`: base [..., D, F], a [..., D, r], b [..., r, F]; leading axes are those of stacked experts. */
export interface LowRank<W extends tf.Tensor = tf.Tensor> {
  readonly base: W;
  readonly a: W;
  readonly b: W;
  readonly scale: number;
  /** What is dropped of the input of the low-rank term; null for nothing. */
  readonly dropout: Dropout | null;
}

/** Sets a share of numbers to zero and scales the others up. */
export interface Dropout {
  readonly rate: number;
  /** Two int32 words; another pair for every place and step. */
  readonly seed_2: tf.Tensor1D;
}

/** The weight as one tensor: for small ones, and for uses that are no product of rows. @param product of its factors. */
export function solid<W extends tf.Tensor>(weight: Weight<W>, product: Product<tf.Tensor, tf.Tensor> = MATRIX): W {
  if (!isLowRank(weight)) return weight;
  const {base, a, b, scale} = weight;
  return tf.add(base, tf.mul(multiplied(a, b, product), scale)) as W;
}

/** The same weight in another shape of its leading axes: `reshape` sees base, a and b. */
export function mapWeight(weight: Weight, reshape: (tensor: tf.Tensor) => tf.Tensor): Weight {
  if (!isLowRank(weight)) return reshape(weight);
  return {...weight, base: reshape(weight.base), a: reshape(weight.a), b: reshape(weight.b)};
}

/** Rows times a weight, `x·base + scale · (drop(x)·a)·b`: the gradient of the base is never made when nobody asks for it. */
export function project<X extends tf.Tensor, W extends tf.Tensor>(x: X, weight: Weight<W>, product: Product<X, W>): X {
  if (!isLowRank(weight)) return multiplied(x, weight, product);
  const {base, a, b, dropout} = weight;
  const low = multiplied(multiplied(drop(x, dropout), a, product), b, product);
  return tf.add(multiplied(x, base, product), tf.mul(low, weight.scale)) as X;
}

/** The second half of a GLU, `(silu(gate) ⊙ up) · w`, as {@link swigluMultiplied}. */
export function projectSwiglu<X extends tf.Tensor, W extends tf.Tensor>(
  gate: X,
  up: X,
  weight: Weight<W>,
  product: Product<X, W>,
): X {
  if (!isLowRank(weight)) return swigluMultiplied(gate, up, weight, product);
  const {base, a, b, scale, dropout} = weight;
  const inner = dropout
    ? multiplied(drop(swiglu(gate, up), dropout), a, product)
    : swigluMultiplied(gate, up, a, product);
  return tf.add(swigluMultiplied(gate, up, base, product), tf.mul(multiplied(inner, b, product), scale)) as X;
}

/** Whether a weight has a low-rank term. */
export function isLowRank<W extends tf.Tensor>(weight: Weight<W>): weight is LowRank<W> {
  return 'base' in weight;
}

/** Some of the numbers, scaled up: the input of a low-rank term in training. */
export function drop<X extends tf.Tensor>(x: X, dropout: Dropout | null): X {
  if (!dropout) return x;
  const {rate, seed_2} = dropout;
  const kept = tf.cast(tf.greaterEqual(randomUniform(seed_2, [...x.shape]), rate), 'float32');
  return tf.mul(x, tf.mul(kept, 1 / (1 - rate)));
}
