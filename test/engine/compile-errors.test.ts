import {describe, expect} from 'vitest';
import {compile} from '../../src/engine/compile.js';
import {ATTR, TF} from '../../src/engine/native/dtype.js';
import {getEngine} from '../../src/engine/state.js';
import type {TensorFlowBackend} from '../../src/engine/tensorflow/backend.js';
import {createVariable} from '../../src/engine/variable.js';
import {expectNoLeak, onTensorFlow} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

/** `file:line` of the caller, as error messages should name it. */
function here(linesBelow = 0): string {
  const [, place, line] = /([^\s(]*compile-errors\.test\.ts):(\d+)/.exec(new Error().stack!.split('\n')[2]!)!;
  return `${place!.replace('file://', '')}:${Number(line) + linesBelow}:`;
}

/** The message of the error that calling `fn` on [1, 2] gives; nothing may be left behind. */
async function messageOf(fn: (x: tf.Tensor) => tf.Tensor | tf.Tensor[]): Promise<string> {
  return expectNoLeak(async () => {
    const x = tf.tensor1d([1, 2]);
    const compiled = compile(fn, {name: 'step'});
    const message = await compiled(x).then(
      (result) => {
        tf.dispose(result);
        return 'no error';
      },
      (error: unknown) => String(error),
    );
    compiled.dispose();
    x.dispose();
    return message;
  });
}

describe('inside a compiled function', () => {
  onTensorFlow('reading a value is an error that names the operation and the line', async () => {
    let line = '';
    const message = await messageOf((x) => {
      const y = tf.exp(x);
      line = here(1);
      return tf.mul(y, y.dataSync()[0]!);
    });
    expect(message).toContain('The value of Exp was read at');
    expect(message).toContain(line);
    expect(message).toContain('read it afterwards');
  });

  onTensorFlow('an operation XLA cannot compile is an error that names it and the line', async () => {
    let line = '';
    const message = await messageOf((x) => {
      const image = tf.reshape(x, [1, 2, 1, 1]) as tf.Tensor4D;
      line = here(1);
      return tf.image.cropAndResize(image, tf.tensor2d([[0, 0, 1, 1]]), tf.tensor1d([0], 'int32'), [2, 2]);
    });
    expect(message).toContain('CropAndResize');
    expect(message).toContain(line);
  });

  onTensorFlow('an operation whose shape depends on values is an error that names the line', async () => {
    let line = '';
    let outcome: Promise<unknown> = Promise.resolve();
    await messageOf((x) => {
      line = here(1);
      outcome = tf.booleanMaskAsync(x, tf.greater(x, 1)).catch(String);
      return tf.neg(x);
    });
    expect(await outcome).toContain('was read at');
    expect(await outcome).toContain(line);
  });

  onTensorFlow('an operation that TensorFlow refuses is an error that names it and the line', async () => {
    let line = '';
    const message = await messageOf((x) => {
      const {binding, toIds, toTensor} = tensorflow();
      const T = {name: 'T', type: ATTR.TYPE, value: TF.FLOAT};
      line = here(1);
      const [product] = binding.executeOp('MatMul', [T], toIds([x, x]), 1); // two vectors, past the checks of tfjs
      return toTensor(product!);
    });
    expect(message).toContain('MatMul');
    expect(message).toContain(line);
  });

  onTensorFlow('an operation that is called as a function is refused like others', async () => {
    let line = '';
    const message = await messageOf((x) => {
      const {binding, toIds, toTensor} = tensorflow();
      const T = {name: 'T', type: ATTR.TYPE, value: TF.INT32};
      line = here(1);
      const [root] = binding.executeOp('Sqrt', [T], toIds([tf.cast(x, 'int32')]), 1); // of whole numbers there is none
      return toTensor(root!);
    });
    expect(message).toContain('Sqrt');
    expect(message).toContain('int32');
    expect(message).toContain(line);
  });

  onTensorFlow('so is one of a scalar, of which there is none', async () => {
    let line = '';
    const message = await messageOf((x) => {
      line = here(1);
      return tf.softmax(tf.sum(x));
    });
    expect(message).toContain('Softmax: Shape must be at least rank 1');
    expect(message).toContain(line);
  });

  onTensorFlow('calling another compiled function is an error', async () => {
    const inner = compile((x: tf.Tensor) => tf.neg(x));
    const calls: Promise<tf.Tensor>[] = [];
    const outer = (x: tf.Tensor): tf.Tensor => {
      calls.push(inner(x));
      return tf.neg(x);
    };
    const first = messageOf(outer); // inner was never compiled
    await expect(calls[0]).rejects.toThrow('while another one is being compiled');
    await first;
    tf.tidy(() => calls.push(inner(tf.tensor1d([1, 2]))));
    tf.dispose(await calls[1]!);
    const second = messageOf(outer); // now it is
    await expect(calls[2]).rejects.toThrow('while another one is being compiled');
    await second;
    inner.dispose();
  });

  onTensorFlow('a disposed variable is an error that names it and the line', async () => {
    const variable = createVariable('layers.3.norm', [2], Float32Array.of(1, 2));
    variable.dispose();
    let line = '';
    const message = await messageOf((x) => {
      line = here(1);
      return tf.add(x, variable.read());
    });
    expect(message).toContain('Variable layers.3.norm was used at');
    expect(message).toContain(line);
  });

  onTensorFlow('creating a variable is an error that names it and the line', async () => {
    let line = '';
    const message = await messageOf((x) => {
      line = here(1);
      const variable = createVariable('late', [2], Float32Array.of(1, 2));
      return tf.add(x, variable.read());
    });
    expect(message).toContain('Variable late was created at');
    expect(message).toContain(line);
  });
});

describe('after compilation', () => {
  onTensorFlow('a variable disposed meanwhile is an error that names it and the function', async () => {
    const variable = createVariable('layers.3.norm', [2], Float32Array.of(1, 2));
    const fn = compile((x: tf.Tensor) => tf.add(x, variable.read()), {name: 'step'});
    const x = tf.tensor1d([1, 2]);
    tf.dispose(await fn(x));
    variable.dispose();
    await expect(fn(x)).rejects.toThrow(/step_\w+ uses variable layers\.3\.norm that was disposed/);
    fn.dispose();
    x.dispose();
  });

  onTensorFlow('a captured tensor disposed meanwhile is an error', async () => {
    const captured = tf.tidy(() => tf.neg(tf.tensor1d([1, 2])));
    const fn = compile((x: tf.Tensor) => tf.add(x, captured), {name: 'step'});
    const x = tf.tensor1d([1, 2]);
    tf.dispose(await fn(x));
    captured.dispose();
    await expect(fn(x)).rejects.toThrow(/step_\w+ uses a tensor that was disposed/);
    fn.dispose();
    x.dispose();
  });

  onTensorFlow('a tensor of the trace is an error that names the line', async () => {
    let kept: tf.Tensor = tf.scalar(0);
    kept.dispose();
    const fn = compile((x: tf.Tensor) => {
      kept = tf.keep(tf.neg(x));
      return tf.exp(kept);
    });
    const x = tf.tensor1d([1, 2]);
    tf.dispose(await fn(x));
    const line = here(1);
    expect(() => tf.add(kept, 1)).toThrow(line);
    expect(() => kept.dataSync()).toThrow('it belongs to a function whose compilation has ended');
    tf.dispose([x, kept]);
    fn.dispose();
  });
});

function tensorflow(): TensorFlowBackend {
  const engine = getEngine();
  if (engine.kind !== 'tensorflow') throw new Error('TensorFlow only');
  return engine.backend;
}
