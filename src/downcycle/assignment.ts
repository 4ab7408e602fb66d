// Items to groups of limited size at the least total cost. Shapes: N items, E groups.

/** `cost_NE[item * E + group]`, all finite, and how many items each group holds at most. */
export interface AssignmentProblem {
  readonly cost_NE: Float64Array;
  readonly capacity_E: ArrayLike<number>;
}

/** Group of every item, and the sum of the costs. */
export interface Assignment {
  readonly groupOf_N: Int32Array;
  readonly cost: number;
  /** Of an optimal one, what shows that it is: every item sits where cost + price is least. */
  readonly price_E?: Float64Array;
}

/** An assignment of the first few items that is optimal for them, with what is needed to add the next one. */
interface Flow extends AssignmentProblem {
  readonly numGroups: number;
  readonly groupOf_N: Int32Array;
  readonly members_E: readonly number[][];
  /** The member of group a that moves to group b most cheaply, [E, E], or -1; and what its move costs, or costs at least. */
  readonly mover_EE: Int32Array;
  readonly move_EE: Float64Array;
  /** 1 where the mover has left, so that the cost is that of a cheaper move than any that is left. */
  readonly isStale_EE: Uint8Array;
  /** Dual price of a place: each item sits where cost + price is least. */
  readonly price_E: Float64Array;
}

/** Shortest paths from one new item to the groups, up to the nearest that has a free place. */
interface Paths {
  /** Length of the path, or less for a group that is not settled. */
  readonly reach_E: Float64Array;
  /** The group an item is pushed out of to enter this one, -1 if the new item enters it directly. */
  readonly from_E: Int32Array;
  readonly target: number;
}

/**
 * The assignment of least total cost (a transportation problem), exact up to float64 rounding.
 *
 * Items enter one by one along a shortest augmenting path over the E groups, where edge a to b is the cheapest item to
 * move; prices keep the edges non-negative, so each path is one dense Dijkstra. O(N E^2) and the searches for movers
 * that have left: 14,336 items in 256 groups take two to four seconds, and twenty if they differ in size alone
 * (`scripts/bench/assignment.ts`), so that nothing approximate is needed for any FFN; one column for each place would
 * make it cubic in N. Ties go to the lower group, then to the lower item.
 *
 * @param start_E prices of an assignment that was nearly this one: items first go where cost + price is least, and only
 * those for whom no place is left there need a path. Looked at where the items fill all places; else free places must
 * cost nothing.
 * @throws RangeError if the groups cannot hold all items.
 */
export function optimalAssignment(problem: AssignmentProblem, start_E?: Assignment['price_E']): Assignment {
  const flow = emptyFlow(problem);
  if (start_E && isFull(problem)) flow.price_E.set(start_E);
  for (const item of placeCheapest(flow)) {
    const paths = shortestPaths(flow, item);
    raisePrices(flow, paths);
    push(flow, paths, item);
  }
  return {groupOf_N: flow.groupOf_N, cost: totalCost(problem, flow.groupOf_N), price_E: flow.price_E};
}

/**
 * Items take, in id order, the cheapest group that is not full (the paper's matching): O(N E), 14 to 35% dearer.
 *
 * @throws RangeError if the groups cannot hold all items.
 */
export function greedyAssignment(problem: AssignmentProblem): Assignment {
  const {cost_NE, capacity_E} = problem;
  const free_E = Array.from(capacity_E);
  const groupOf_N = new Int32Array(numItems(problem));
  for (let item = 0; item < groupOf_N.length; item++) {
    let best = -1;
    for (let group = 0; group < free_E.length; group++) {
      if (free_E[group] === 0) continue;
      if (best < 0 || costOf(cost_NE, free_E.length, item, group) < costOf(cost_NE, free_E.length, item, best)) {
        best = group;
      }
    }
    groupOf_N[item] = best;
    free_E[best] = (free_E[best] as number) - 1;
  }
  return {groupOf_N, cost: totalCost(problem, groupOf_N)};
}

function emptyFlow(problem: AssignmentProblem): Flow {
  const numGroups = problem.capacity_E.length;
  return {
    ...problem,
    numGroups,
    groupOf_N: new Int32Array(numItems(problem)).fill(-1),
    members_E: Array.from({length: numGroups}, () => []),
    mover_EE: new Int32Array(numGroups * numGroups).fill(-1),
    move_EE: new Float64Array(numGroups * numGroups).fill(Number.POSITIVE_INFINITY),
    isStale_EE: new Uint8Array(numGroups * numGroups),
    price_E: new Float64Array(numGroups),
  };
}

/** Puts items, in id order, where cost + price is least as long as there is a place; gives those for whom there was none. */
function placeCheapest(flow: Flow): number[] {
  const {cost_NE, numGroups, price_E, groupOf_N} = flow;
  const left: number[] = [];
  for (let item = 0; item < groupOf_N.length; item++) {
    let best = 0;
    let least = Number.POSITIVE_INFINITY;
    for (let group = 0; group < numGroups; group++) {
      const price = costOf(cost_NE, numGroups, item, group) + (price_E[group] as number);
      if (price >= least) continue;
      best = group;
      least = price;
    }
    if (hasPlace(flow, best)) enter(flow, item, best);
    else left.push(item);
  }
  return left;
}

/**
 * Dijkstra over the groups with reduced costs; stops at the first group with a free place. O(E^2).
 *
 * Members are only searched for the cheapest to move where the path would take an edge whose mover has left.
 */
function shortestPaths(flow: Flow, item: number): Paths {
  const {cost_NE, numGroups, price_E} = flow;
  const direct_E = price_E.map((price, group) => price + costOf(cost_NE, numGroups, item, group));
  const paths = {reach_E: direct_E.slice(), from_E: new Int32Array(numGroups).fill(-1)};
  const isSettled_E = new Uint8Array(numGroups);
  const settled: number[] = [];
  for (;;) {
    const group = nearest(paths.reach_E, isSettled_E);
    if (refresh(flow, paths.from_E[group] as number, group)) {
      paths.reach_E[group] = direct_E[group] as number;
      paths.from_E[group] = -1;
      for (const a of settled) relax(flow, paths, a, group);
      continue;
    }
    if (hasPlace(flow, group)) return {...paths, target: group};
    isSettled_E[group] = 1;
    settled.push(group);
    for (let b = 0; b < numGroups; b++) if (!isSettled_E[b]) relax(flow, paths, group, b);
  }
}

/** Lets the path to group b come through group a if that is shorter. */
function relax(
  {numGroups, move_EE, price_E}: Flow,
  {reach_E, from_E}: Omit<Paths, 'target'>,
  a: number,
  b: number,
): void {
  const base = (reach_E[a] as number) - (price_E[a] as number);
  const reach = base + (move_EE[a * numGroups + b] as number) + (price_E[b] as number);
  if (reach >= (reach_E[b] as number)) return;
  reach_E[b] = reach;
  from_E[b] = a;
}

function nearest(reach_E: Float64Array, isSettled_E: Uint8Array): number {
  let best = -1;
  for (let group = 0; group < reach_E.length; group++) {
    if (isSettled_E[group]) continue;
    if (best < 0 || (reach_E[group] as number) < (reach_E[best] as number)) best = group;
  }
  return best;
}

/** Groups nearer than the target become dearer by the difference, so that the path's edges cost nothing. */
function raisePrices({price_E}: Flow, {reach_E, target}: Paths): void {
  const distance = reach_E[target] as number;
  for (let group = 0; group < price_E.length; group++) {
    const gap = distance - (reach_E[group] as number);
    if (gap > 0) price_E[group] = (price_E[group] as number) + gap;
  }
}

/** Moves one item along each edge of the path, from its end backwards, and puts the new one in its first group. */
function push(flow: Flow, {from_E, target}: Paths, item: number): void {
  let group = target;
  for (let from = from_E[group] as number; from >= 0; from = from_E[group] as number) {
    const mover = flow.mover_EE[from * flow.numGroups + group] as number;
    leave(flow, mover, from);
    enter(flow, mover, group);
    group = from;
  }
  enter(flow, item, group);
}

function enter(flow: Flow, item: number, group: number): void {
  flow.groupOf_N[item] = group;
  flow.members_E[group]?.push(item);
  for (let to = 0; to < flow.numGroups; to++) if (to !== group) offer(flow, item, group, to);
}

function leave(flow: Flow, item: number, group: number): void {
  const members = flow.members_E[group] as number[];
  members.splice(members.indexOf(item), 1);
  for (let edge = group * flow.numGroups; edge < (group + 1) * flow.numGroups; edge++) {
    if (flow.mover_EE[edge] === item) flow.isStale_EE[edge] = 1;
  }
}

/** Finds the mover from group a to b anew if it has left; says whether it had. No edge leads from group -1. */
function refresh(flow: Flow, a: number, b: number): boolean {
  const edge = a * flow.numGroups + b;
  if (a < 0 || !flow.isStale_EE[edge]) return false;
  flow.isStale_EE[edge] = 0;
  flow.mover_EE[edge] = -1;
  flow.move_EE[edge] = Number.POSITIVE_INFINITY;
  for (const member of flow.members_E[a] as number[]) offer(flow, member, a, b);
  return true;
}

/** Makes `item` the mover from group to `to` if none is cheaper, nor was. */
function offer(
  {cost_NE, numGroups, mover_EE, move_EE, isStale_EE}: Flow,
  item: number,
  group: number,
  to: number,
): void {
  const edge = group * numGroups + to;
  const move = costOf(cost_NE, numGroups, item, to) - costOf(cost_NE, numGroups, item, group);
  const best = move_EE[edge] as number;
  if (move > best || (move === best && item > (mover_EE[edge] as number))) return;
  mover_EE[edge] = item;
  move_EE[edge] = move;
  isStale_EE[edge] = 0;
}

function hasPlace({members_E, capacity_E}: Flow, group: number): boolean {
  return (members_E[group] as number[]).length < (capacity_E[group] as number);
}

function costOf(cost_NE: Float64Array, numGroups: number, item: number, group: number): number {
  return cost_NE[item * numGroups + group] as number;
}

function totalCost({cost_NE, capacity_E}: AssignmentProblem, groupOf_N: Int32Array): number {
  return groupOf_N.reduce((sum, group, item) => sum + costOf(cost_NE, capacity_E.length, item, group), 0);
}

function isFull({cost_NE, capacity_E}: AssignmentProblem): boolean {
  return cost_NE.length / capacity_E.length === numPlaces(capacity_E);
}

function numPlaces(capacity_E: ArrayLike<number>): number {
  return Array.from(capacity_E).reduce((sum, capacity) => sum + capacity, 0);
}

function numItems({cost_NE, capacity_E}: AssignmentProblem): number {
  const items = cost_NE.length / capacity_E.length;
  const places = numPlaces(capacity_E);
  if (places >= items) return items;
  throw new RangeError(`${items} items do not fit into ${capacity_E.length} groups with ${places} places`);
}
