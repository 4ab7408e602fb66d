import {describe, expect, it} from 'vitest';
import {missingRows} from '../../src/model/capacity.js';
import {
  addExpertBias,
  combine,
  dispatch,
  type ExpertRoom,
  type ExpertSlots,
  expertProduct,
  expertSlots,
} from '../../src/op/experts.js';
import {multiplied} from '../../src/op/product.js';
import {onEveryEngine, type TestEngine} from '../support/engines.js';
import {checkGradients, gradientsOf} from '../support/gradients.js';
import {dot, type Host, ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** T tokens choose K of E experts with C rows each; experts 0 and 1 are wanted by four and five pairs. */
const [T, K, E, C, D] = [6, 2, 4, 3, 3];
const [P, R] = [T * K, E * C];
const CHOICE = [1, 0, 1, 2, 0, 1, 2, 1, 1, 0, 2, 0];
const choice = ints([T, K], CHOICE);
const choiceTensor = (): tf.Tensor2D => tf.tensor2d(CHOICE, [T, K], 'int32');
const x = normals([T, D], 1);
const rows = normals([R, D], 2);
const weight = normals([T, K], 3);

/** Rows of every expert and no spare blocks. */
const only = (capacity: number): ExpertRoom => ({rows: capacity, blockRows: 8, blocks: 0});
/** One row of every expert and blocks of two: experts 0, 1 and 2 want two, two and one of them. */
const spare = (blocks: number): ExpertRoom => ({rows: 1, blockRows: 2, blocks});

/** Slots by walking over the pairs: the row of each, or null where there is no room. */
function walk(room: ExpertRoom | number): (number | null)[] {
  const {rows: own, blockRows, blocks} = typeof room === 'number' ? only(room) : room;
  const wanted = Array.from({length: E}, (_, expert) => CHOICE.filter((one) => one === expert).length);
  const firstBlock = wanted.map((_, expert) =>
    wanted.slice(0, expert).reduce((sum, count) => sum + Math.ceil(Math.max(0, count - own) / blockRows), 0),
  );
  const used = new Array<number>(E).fill(0);
  return CHOICE.map((expert) => {
    const place = used[expert]!++;
    if (place < own) return expert * own + place;
    const row = E * own + firstBlock[expert]! * blockRows + place - own;
    return row < E * own + blocks * blockRows ? row : null;
  });
}

async function slotsOf(
  {run}: TestEngine,
  room: ExpertRoom | number,
): Promise<{slot: number[]; source: number[]; load: number[]; blocks: number[]}> {
  const fn = (chosen: tf.Tensor2D): tf.Tensor[] => {
    const {slot_P, source_R, load_E, expert_S} = expertSlots(chosen, E, typeof room === 'number' ? only(room) : room);
    return [slot_P, source_R, load_E, expert_S];
  };
  const [slot, source, load, blocks] = (await run(fn, choice)).map(({values}) => Array.from(values));
  return {slot: slot!, source: source!, load: load!, blocks: blocks!};
}

const rowOf = ({values}: Host, i: number): number[] => Array.from(values.subarray(i * D, (i + 1) * D));

describe('expertSlots', () => {
  onEveryEngine('gives pairs the rows of their expert in token order, and R once it is full', async (engine) => {
    const {slot} = await slotsOf(engine, C);
    expect(slot).toEqual(walk(C).map((row) => row ?? R));
  });

  onEveryEngine('names the pair of each row, and P for an empty one', async (engine) => {
    const {slot, source} = await slotsOf(engine, C);
    const pairs = Array.from({length: R}, (_, row) => slot.indexOf(row));
    expect(source).toEqual(pairs.map((pair) => (pair < 0 ? P : pair)));
  });

  onEveryEngine('gives every pair a row of its own when nothing overflows', async (engine) => {
    const {slot, source} = await slotsOf(engine, P);
    expect(new Set(slot).size).toBe(P);
    expect(slot.map((row) => source[row])).toEqual(CHOICE.map((_, pair) => pair));
    expect(slot.map((row) => Math.floor(row / P))).toEqual(CHOICE);
  });

  onEveryEngine('counts all pairs that wanted an expert, those without a row too', async (engine) => {
    const wanted = [0, 1, 2, 3].map((expert) => CHOICE.filter((one) => one === expert).length);
    expect((await slotsOf(engine, C)).load).toEqual(wanted);
    expect((await slotsOf(engine, 1)).load).toEqual(wanted);
  });
});

describe('spare blocks', () => {
  const ROOMS = [0, 1, 2, 3, 4, 5, 7];

  onEveryEngine(
    'take what exceeds the rows of an expert, expert by expert, until there are none left',
    async (engine) => {
      for (const blocks of ROOMS) {
        const total = E + 2 * blocks;
        const {slot, source} = await slotsOf(engine, spare(blocks));
        expect(slot, `${blocks} blocks`).toEqual(walk(spare(blocks)).map((row) => row ?? total));
        const pairs = Array.from({length: total}, (_, row) => slot.indexOf(row));
        expect(source).toEqual(pairs.map((pair) => (pair < 0 ? P : pair)));
      }
    },
  );

  it('leave out as many pairs as missingRows says', () => {
    const load = Array.from({length: E}, (_, expert) => CHOICE.filter((one) => one === expert).length);
    for (const blocks of ROOMS) {
      const without = walk(spare(blocks)).filter((row) => row === null).length;
      expect(missingRows(load, spare(blocks)), `${blocks} blocks`).toBe(without);
    }
  });

  onEveryEngine('belong to the expert of every pair in them; those nobody wants to the last', async (engine) => {
    for (const blocks of ROOMS) {
      expect((await slotsOf(engine, spare(blocks))).blocks).toEqual([0, 0, 1, 1, 2, 3, 3].slice(0, blocks));
    }
  });
});

describe('a pair without an expert', () => {
  const [NONE, some] = [E, [1, E, 1, 2, E, 1, 2, 1, 1, E, 2, E]];

  onEveryEngine('gets no row, is no load and takes no spare block of others', async ({run}) => {
    for (const blocks of [0, 3, 5]) {
      const room = spare(blocks);
      const fn = (chosen: tf.Tensor2D): tf.Tensor[] => {
        const {slot_P, source_R, load_E} = expertSlots(chosen, E, room);
        return [slot_P, source_R, load_E];
      };
      const [slot, source, load] = (await run(fn, ints([T, K], some))).map(({values}) => Array.from(values));
      const total = E + 2 * blocks;
      for (const [pair, expert] of some.entries())
        if (expert === NONE) expect(slot![pair], `${blocks} blocks`).toBe(total);
      expect(source!.filter((pair) => some[pair] === NONE)).toEqual([]);
      expect(load).toEqual([0, 5, 3, 0]);
    }
  });

  onEveryEngine('adds nothing', async ({run}) => {
    const fn = (chosen: tf.Tensor2D, input: tf.Tensor2D, weights: tf.Tensor2D): tf.Tensor => {
      const slots = expertSlots(chosen, E, spare(5));
      return combine(dispatch(input, slots), weights, slots);
    };
    const [result] = await run(fn, ints([T, K], some), x, weight);
    const expected = Array.from({length: T}, (_, t) => {
      const sum = [0, 1].reduce((total, k) => total + (some[t * K + k] === NONE ? 0 : weight.values[t * K + k]!), 0);
      return rowOf(x, t).map((value) => value * sum);
    });
    expect(result!.values).toBeAllClose(expected);
  });
});

describe('the product by expert', () => {
  const F = 2;
  const matrices = normals([E, D, F], 4);
  /** Tokens through the matrix of each chosen expert, added up by weight. */
  const through =
    (room: ExpertRoom) =>
    (input: tf.Tensor2D, w: tf.Tensor3D, weights: tf.Tensor2D): tf.Tensor => {
      const slots = expertSlots(choiceTensor(), E, room);
      return combine(multiplied(dispatch(input, slots), w, expertProduct(slots)), weights, slots);
    };

  onEveryEngine('equals a loop over tokens and their experts, with spare blocks and without', async ({run}) => {
    const expected = Array.from({length: T}, (_, t) =>
      Array.from({length: F}, (_, f) =>
        [0, 1].reduce((sum, k) => {
          const matrix = matrices.values.subarray(CHOICE[t * K + k]! * D * F);
          const y = rowOf(x, t).reduce((dotted, value, d) => dotted + value * matrix[d * F + f]!, 0);
          return sum + weight.values[t * K + k]! * y;
        }, 0),
      ),
    );
    for (const room of [only(P), spare(5), spare(7)]) {
      const [result] = await run(through(room), x, matrices, weight);
      expect(result!.values).toBeAllClose(expected);
    }
  });

  onEveryEngine('has the gradient of finite differences with spare blocks, full or not', async (engine) => {
    for (const blocks of [3, 7]) await checkGradients(engine, through(spare(blocks)), [x, matrices, weight]);
  });
});

describe('the bias by expert', () => {
  const bias = normals([E, D], 5);
  const biased =
    (room: ExpertRoom) =>
    (input: tf.Tensor2D, b: tf.Tensor2D, weights: tf.Tensor2D): tf.Tensor => {
      const slots = expertSlots(choiceTensor(), E, room);
      return combine(addExpertBias(dispatch(input, slots), b, slots), weights, slots);
    };

  onEveryEngine('counts as much as the result it is added to, and not where there is no row', async ({run}) => {
    for (const room of [only(P), only(1), spare(3), spare(7)]) {
      const slot = walk(room);
      const expected = Array.from({length: T}, (_, t) =>
        Array.from({length: D}, (_, i) =>
          [0, 1].reduce((sum, k) => {
            if (slot[t * K + k] === null) return sum;
            const value = rowOf(x, t)[i]! + rowOf(bias, CHOICE[t * K + k]!)[i]!;
            return sum + weight.values[t * K + k]! * value;
          }, 0),
        ),
      );
      const [result] = await run(biased(room), x, bias, weight);
      expect(result!.values).toBeAllClose(expected);
    }
  });

  onEveryEngine('has the gradient of finite differences, whether all rows fit or not', async (engine) => {
    for (const room of [only(P), only(1), spare(3), spare(7)]) {
      await checkGradients(engine, biased(room), [x, bias, weight]);
    }
  });
});

/** dispatch and combine with the slots of the fixed choice. */
const send = (input: tf.Tensor2D): tf.Tensor => dispatch(input, slotsFor(C));
const gather = (input: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor => combine(input, w, slotsFor(C));

describe('dispatch', () => {
  onEveryEngine('copies the row of each token to its slots', async ({run}) => {
    const [result] = await run(send, x);
    expect(result!.shape).toEqual([R, D]);
    for (const [pair, row] of walk(C).entries()) {
      if (row !== null) expect(rowOf(result!, row)).toEqual(rowOf(x, Math.floor(pair / K)));
    }
  });

  onEveryEngine('sends gradients of filled rows back to their tokens and those of others nowhere', async (engine) => {
    const [gradient] = await gradientsOf(engine, send, [x], rows);
    const expected = Array.from({length: T}, () => [0, 0, 0]);
    for (const [pair, row] of walk(C).entries()) {
      if (row === null) continue;
      const sums = expected[Math.floor(pair / K)]!;
      for (let i = 0; i < D; i++) sums[i]! += rowOf(rows, row)[i]!;
    }
    expect(gradient!.values).toBeAllClose(expected);
  });

  onEveryEngine('is the adjoint of its gradient on the rows that are filled', async (engine) => {
    const filled = new Set(walk(C));
    const y = {...rows, values: rows.values.map((v, i) => (filled.has(Math.floor(i / D)) ? v : 0))};
    const [forward] = await engine.run(send, x);
    const [backward] = await gradientsOf(engine, send, [x], y);
    expect(dot(forward!.values, y.values)).toBeAllClose(dot(x.values, backward!.values), {rtol: 1e-5, atol: 1e-5});
  });
});

describe('combine', () => {
  onEveryEngine('adds up the rows of each token by weight; a pair without a row adds nothing', async ({run}) => {
    const [result] = await run(gather, rows, weight);
    const slot = walk(C);
    const expected = Array.from({length: T}, (_, t) =>
      Array.from({length: D}, (_, i) =>
        [0, 1].reduce((sum, k) => {
          const row = slot[t * K + k]!;
          return row === null ? sum : sum + weight.values[t * K + k]! * rowOf(rows, row)[i]!;
        }, 0),
      ),
    );
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('has the gradient of finite differences for rows and weights', (engine) =>
    checkGradients(engine, gather, [rows, weight]),
  );

  onEveryEngine('gives empty rows and pairs without a row zero gradient', async (engine) => {
    const [dRows, dWeight] = await gradientsOf(engine, gather, [rows, weight], x);
    const filled = new Set(walk(C));
    for (let row = 0; row < R; row++) {
      if (!filled.has(row)) expect(rowOf(dRows!, row)).toBeAllClose([0, 0, 0], {rtol: 0, atol: 0});
    }
    const overflowed = walk(C).flatMap((row, pair) => (row === null ? [dWeight!.values[pair]!] : []));
    expect(overflowed).toBeAllClose([0, 0, 0], {rtol: 0, atol: 0});
  });
});

describe('dispatch, experts, combine', () => {
  onEveryEngine('equal a loop over tokens and their experts when nothing overflows', async ({run}) => {
    const scales = [2, -1, 0.5, 3];
    const fn = (input: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor => combine(scaled(input, P, scales), w, slotsFor(P));
    const [result] = await run(fn, x, weight);
    const expected = Array.from({length: T}, (_, t) => {
      const factor = [0, 1].reduce((sum, k) => sum + weight.values[t * K + k]! * scales[CHOICE[t * K + k]!]!, 0);
      return rowOf(x, t).map((v) => v * factor);
    });
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('have the gradient of finite differences with overflow', (engine) => {
    const fn = (input: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor =>
      combine(scaled(input, C, [2, -1, 0.5, 3]), w, slotsFor(C));
    return checkGradients(engine, fn, [x, weight]);
  });
});

function slotsFor(capacity: number): ExpertSlots {
  return expertSlots(choiceTensor(), E, only(capacity));
}

/** Experts that multiply by a number each. */
function scaled(input: tf.Tensor2D, capacity: number, scales: number[]): tf.Tensor2D {
  const rows_ECD = tf.reshape(dispatch(input, slotsFor(capacity)), [E, capacity, D]);
  return tf.reshape(tf.mul(rows_ECD, tf.tensor3d(scales, [E, 1, 1])), [E * capacity, D]);
}
