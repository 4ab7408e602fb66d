import fc from 'fast-check';
import {linearSumAssignment} from 'linear-sum-assignment';
import {describe, expect, it} from 'vitest';
import {type AssignmentProblem, greedyAssignment, optimalAssignment} from '../../src/downcycle/assignment.js';
import {createRng, shuffle} from '../../src/util/rng.js';

/** Problems of up to 24 items and 6 groups, often with equal costs and free places. */
const problems = fc
  .record({
    capacities: fc.array(fc.integer({min: 0, max: 6}), {minLength: 1, maxLength: 6}),
    free: fc.integer({min: 0, max: 3}),
    seed: fc.integer(),
    levels: fc.constantFrom(1, 3, 10, 2 ** 30),
  })
  .map(({capacities, free, seed, levels}): AssignmentProblem => {
    const items = Math.max(0, capacities.reduce((a, b) => a + b, 0) - free);
    return randomProblem(items, capacities, seed, levels);
  });

function randomProblem(items: number, capacity_E: number[], seed: number, levels = 2 ** 30): AssignmentProblem {
  const rng = createRng(seed, 'costs');
  const cost_NE = new Float64Array(items * capacity_E.length).map(() => rng.int(levels) / levels - 0.5);
  return {cost_NE, capacity_E};
}

/** The same problem with one column for each place, solved by a published Jonker-Volgenant implementation. */
function costOverSlots({cost_NE, capacity_E}: AssignmentProblem): number {
  const numGroups = capacity_E.length;
  const slots = Array.from(capacity_E).flatMap((capacity, group) => new Array<number>(capacity).fill(group));
  const rows = Array.from({length: cost_NE.length / numGroups}, (_, item) =>
    slots.map((group) => cost_NE[item * numGroups + group]!),
  );
  if (rows.length === 0) return 0;
  const {rowAssignments} = linearSumAssignment(rows, {maximaze: false});
  return rows.reduce((sum, row, item) => sum + row[rowAssignments[item]!]!, 0);
}

function groupSizes(groupOf_N: Int32Array, numGroups: number): number[] {
  const size_E = new Array<number>(numGroups).fill(0);
  for (const group of groupOf_N) size_E[group]!++;
  return size_E;
}

function expectFits(groupOf_N: Int32Array, {capacity_E, cost_NE}: AssignmentProblem): void {
  expect(groupOf_N.length).toBe(cost_NE.length / capacity_E.length);
  groupSizes(groupOf_N, capacity_E.length).forEach((size, group) => {
    expect(size).toBeLessThanOrEqual(capacity_E[group]!);
  });
}

describe('optimalAssignment', () => {
  it('costs as much as an optimal linear assignment to single places', () => {
    fc.assert(
      fc.property(problems, (problem) => {
        expect(optimalAssignment(problem).cost).toBeAllClose(costOverSlots(problem), {atol: 1e-9});
      }),
      {numRuns: 300},
    );
  });

  it('costs exactly as much when costs are whole numbers, and so often tied', () => {
    const whole = (problem: AssignmentProblem): AssignmentProblem => ({
      ...problem,
      cost_NE: problem.cost_NE.map((cost) => Math.round(10 * cost)),
    });
    fc.assert(
      fc.property(problems.map(whole), (problem) => {
        expect(optimalAssignment(problem).cost).toBe(costOverSlots(problem));
      }),
      {numRuns: 300},
    );
  });

  it('costs as much when all items would shift along one line of groups', () => {
    const rng = createRng(6, 'sizes');
    const size_N = Array.from({length: 120}, () => rng.normal());
    const cost_NE = new Float64Array(size_N.flatMap((size) => Array.from({length: 12}, (_, e) => (size - e / 3) ** 2)));
    const problem = {cost_NE, capacity_E: new Array<number>(12).fill(10)};
    expect(optimalAssignment(problem).cost).toBeAllClose(costOverSlots(problem), {rtol: 1e-12, atol: 0});
  });

  it('costs as much when costs are large and nearly the same for every item', () => {
    const {cost_NE, capacity_E} = randomProblem(60, [20, 15, 15, 10], 5);
    const crowded = {cost_NE: cost_NE.map((cost, at) => 1000 + 100 * (at % 4) + cost), capacity_E};
    expect(optimalAssignment(crowded).cost).toBeAllClose(costOverSlots(crowded), {rtol: 1e-12, atol: 0});
  });

  it('respects every capacity, also different ones and zero', () => {
    fc.assert(fc.property(problems, (problem) => expectFits(optimalAssignment(problem).groupOf_N, problem)));
  });

  it('reports the cost of the assignment it returns', () => {
    fc.assert(
      fc.property(problems, (problem) => {
        const {groupOf_N, cost} = optimalAssignment(problem);
        const width = problem.capacity_E.length;
        const sum = Array.from(groupOf_N).reduce((s, group, item) => s + problem.cost_NE[item * width + group]!, 0);
        expect(cost).toBe(sum);
      }),
    );
  });

  it('puts permuted items into the same groups where no costs are equal', () => {
    const problem = randomProblem(40, [10, 10, 10, 10], 3);
    const order = shuffle(
      Array.from({length: 40}, (_, i) => i),
      createRng(4, 'order'),
    );
    const rows = order.flatMap((item) => Array.from(problem.cost_NE.subarray(item * 4, item * 4 + 4)));
    const plain = optimalAssignment(problem);
    const permuted = optimalAssignment({...problem, cost_NE: new Float64Array(rows)});
    expect(Array.from(permuted.groupOf_N)).toEqual(order.map((item) => plain.groupOf_N[item]));
    expect(permuted.cost).toBeAllClose(plain.cost, {atol: 1e-12});
  });

  it('fills equal groups in id order when all costs are equal', () => {
    const {groupOf_N, cost} = optimalAssignment({cost_NE: new Float64Array(18).fill(2), capacity_E: [2, 3, 1]});
    expect(Array.from(groupOf_N)).toEqual([0, 0, 1, 1, 1, 2]);
    expect(cost).toBe(12);
  });

  it('gives the same groups every time', () => {
    const problem = randomProblem(24, [6, 6, 6, 6], 9, 3);
    expect(optimalAssignment(problem).groupOf_N).toEqual(optimalAssignment(problem).groupOf_N);
  });

  it('assigns the neurons of a wide FFN exactly within seconds, also when they differ in size only', () => {
    const rng = createRng(1, 'sizes');
    const size_N = Array.from({length: 4096}, () => rng.normal());
    const random = randomProblem(4096, new Array<number>(32).fill(128), 1);
    for (const problem of [
      random,
      {...random, cost_NE: random.cost_NE.map((_, at) => -size_N[at >> 5]! * (at % 32))},
    ]) {
      const start = process.cpuUsage().user;
      const {groupOf_N, cost} = optimalAssignment(problem);
      expect(process.cpuUsage().user - start).toBeLessThan(5e6); // microseconds
      expect(groupSizes(groupOf_N, 32)).toEqual(new Array<number>(32).fill(128));
      expect(cost).toBeLessThan(greedyAssignment(problem).cost);
    }
  });

  it('costs as much from any prices it starts with', () => {
    fc.assert(
      fc.property(
        problems,
        fc.array(fc.double({min: -2, max: 2, noNaN: true}), {minLength: 6, maxLength: 6}),
        (problem, prices) => {
          const start_E = Float64Array.from(prices.slice(0, problem.capacity_E.length));
          const warm = optimalAssignment(problem, start_E);
          expectFits(warm.groupOf_N, problem);
          expect(warm.cost).toBeAllClose(costOverSlots(problem), {atol: 1e-9});
        },
      ),
      {numRuns: 300},
    );
  });

  it('gives prices at which no item would rather sit elsewhere, and starts from them where it was', () => {
    const problem = randomProblem(40, [10, 10, 10, 10], 8);
    const {groupOf_N, price_E} = optimalAssignment(problem);
    groupOf_N.forEach((group, item) => {
      const priced = Array.from(price_E!, (price, e) => price + problem.cost_NE[item * 4 + e]!);
      expect(priced[group]).toBeLessThanOrEqual(Math.min(...priced) + 1e-12);
    });
    expect(optimalAssignment(problem, price_E).groupOf_N).toEqual(groupOf_N);
  });

  it('refuses groups that cannot hold all items', () => {
    const problem = {cost_NE: new Float64Array(8), capacity_E: [1, 2]};
    expect(() => optimalAssignment(problem)).toThrow(new RangeError('4 items do not fit into 2 groups with 3 places'));
  });
});

describe('greedyAssignment', () => {
  it('lets items choose in id order among the groups that are not full', () => {
    const cost_NE = new Float64Array([1, 2, 1, 5, 3, 9]);
    const {groupOf_N, cost} = greedyAssignment({cost_NE, capacity_E: [1, 2]});
    expect(Array.from(groupOf_N)).toEqual([0, 1, 1]);
    expect(cost).toBe(1 + 5 + 9);
  });

  it('respects every capacity and is never cheaper than the optimum', () => {
    fc.assert(
      fc.property(problems, (problem) => {
        const greedy = greedyAssignment(problem);
        expectFits(greedy.groupOf_N, problem);
        expect(greedy.cost).toBeGreaterThanOrEqual(optimalAssignment(problem).cost - 1e-9);
      }),
    );
  });

  it('refuses groups that cannot hold all items', () => {
    expect(() => greedyAssignment({cost_NE: new Float64Array(8), capacity_E: [1, 2]})).toThrow(RangeError);
  });
});
