import {expect} from 'vitest';
import type {HostFunction, TestEngine} from './engines.js';
import {dot, floats, type Host, normals} from './host.js';
import * as tf from './tfjs.js';

/** How closely gradients are checked. */
interface GradientOptions {
  /** Step of the differences; default 0.02, which balances float32 rounding and curvature of unit-sized inputs. */
  readonly step?: number;
  /** Allowed error as a share of the gradient's norm; default 0.002. */
  readonly tolerance?: number;
}

type Inputs<T extends tf.Tensor[]> = {[K in keyof T]: Host};

/**
 * Expects the gradient of `fn` to each input to predict how `fn` changes in random directions.
 *
 * The loss is `<w, fn(x)>` with random w, summed in float64 outside the engine; differences are central, of fourth order.
 */
export async function checkGradients<T extends tf.Tensor[]>(
  engine: TestEngine,
  fn: (...inputs: T) => tf.Tensor,
  inputs: Inputs<T>,
  {step = 0.02, tolerance = 2e-3}: GradientOptions = {},
): Promise<void> {
  const value = engine.prepare(fn);
  const [out] = await value(...inputs);
  const w = normals(out!.shape, 901);
  const gradients = await gradientsOf(engine, fn, inputs, w);
  for (const [i, gradient] of gradients.entries()) {
    expect(gradient.shape, `shape of gradient ${i}`).toEqual(inputs[i]!.shape);
    for (const seed of [1, 2]) {
      const direction = normals(gradient.shape, 100 * (i + 1) + seed).values;
      const slope = await difference(value, inputs, i, direction, w.values, step);
      const error = Math.abs(dot(gradient.values, direction) - slope);
      const norm = Math.sqrt(dot(gradient.values, gradient.values));
      expect(error, `gradient ${i} along a direction where the slope is ${slope}`).toBeLessThan(
        tolerance * norm + 1e-5 + 1e-6 * Math.abs(slope),
      );
    }
  }
  value.dispose();
}

/** Gradients of `<w, fn(inputs)>` to every input. */
export function gradientsOf<T extends tf.Tensor[]>(
  engine: TestEngine,
  fn: (...inputs: T) => tf.Tensor,
  inputs: Inputs<T>,
  w: Host,
): Promise<Host[]> {
  const onTensors = (...tensors: tf.Tensor[]): tf.Tensor => fn(...(tensors as T));
  const all = [...(inputs as readonly Host[]), w];
  const backward = (...tensors: tf.Tensor[]): tf.Tensor[] => tf.grads(onTensors)(tensors.slice(0, -1), tensors.at(-1));
  return engine.run(backward, ...all);
}

/** (8(L(h) − L(−h)) − (L(2h) − L(−2h))) / 12h with L the loss along `direction` of input `i`. */
async function difference<T extends tf.Tensor[]>(
  value: HostFunction<T>,
  inputs: Inputs<T>,
  i: number,
  direction: ArrayLike<number>,
  w: ArrayLike<number>,
  h: number,
): Promise<number> {
  const at = async (distance: number): Promise<number> => {
    const {shape, values} = inputs[i]!;
    const moved = floats(
      shape,
      Float32Array.from(values, (x, j) => x + distance * direction[j]!),
    );
    const [out] = await value(...((inputs as readonly Host[]).map((one, j) => (j === i ? moved : one)) as Inputs<T>));
    return dot(out!.values, w);
  };
  return (8 * ((await at(h)) - (await at(-h))) - ((await at(2 * h)) - (await at(-2 * h)))) / (12 * h);
}
