import {setTimeout as sleep} from 'node:timers/promises';
import {describeError} from '../../src/util/errors.js';
import {type Case, type Finetune, type Kind, type Place, setupOf} from './cases.js';
import type {Setup} from './protocol.js';
import {type CaseResult, flopsOf, MATMUL_SIZE, medianMs, type Running, ratiosOf, sideResult} from './result.js';
import {openSide, type Side, type SideCommand} from './side.js';

/** How often and how long sides take turns. */
export interface Turns {
  readonly rounds: number;
  /** Steps a turn. */
  readonly steps: number;
  readonly place: Place;
  /** As in {@link Setup}. */
  readonly capacity: number | null;
}

/** Steps after the first that nobody times: caches and allocators settle. */
const WARM_UP_STEPS = 2;
/** Threads of the side that ran last may spin for a while; they must sleep before the next one is timed. */
const SETTLE_MS = 250;
/** A side that has not taken its first steps by then is left out. */
const START_LIMIT_MS = 15 * 60_000;
const MATMUL_REPEATS = 5;
const TICKS_A_SECOND = 100;

/** Times a case: sides are started one after the other, then take turns in one run. The first one is ours. */
export async function measureCase(
  one: Case,
  {kind, finetune}: {readonly kind: Kind; readonly finetune: Finetune},
  commands: readonly SideCommand[],
  turns: Turns,
  report: (line: string) => void,
): Promise<CaseResult> {
  const running: Running[] = [];
  const setup = {...setupOf(one, kind, finetune, turns.place), capacity: turns.capacity};
  try {
    for (const command of commands) {
      const runner = await startSide(command, setup, report);
      if (runner) running.push(runner);
    }
    for (let round = 1; round <= turns.rounds; round++) {
      for (const runner of running) await takeTurn(runner, running, turns.steps);
      report(`round ${round}/${turns.rounds}: ${running.map(lastTurn).join(', ')}`);
    }
    const sides = await Promise.all(running.map((runner) => sideResult(runner, flopsOf(one, kind, finetune))));
    return {name: one.name, title: one.title, kind, finetune, sides, ratios: ratiosOf(sides)};
  } finally {
    await Promise.all(running.map(({side}) => side.close()));
  }
}

/** Starts a side and lets it settle. PyTorch may fail (no compiler, no memory, too slow) and is left out; ours throws. */
async function startSide(command: SideCommand, setup: Setup, report: (line: string) => void): Promise<Running | null> {
  const side = openSide(command);
  const limit = setTimeout(() => side.kill(), START_LIMIT_MS);
  try {
    const running = await settle(side, {...setup, compile: command.compiles});
    report(`${command.name}: first step ${(running.firstMs / 1000).toFixed(1)} s`);
    return running;
  } catch (error) {
    await side.close();
    if (command.isOurs) throw error;
    report(`${command.name} is left out: ${describeError(error)}`);
    return null;
  } finally {
    clearTimeout(limit);
  }
}

async function settle(side: Side, setup: Setup): Promise<Running> {
  const {version} = await side.ask({kind: 'start', setup});
  const first = await side.ask({kind: 'steps', count: 1});
  await side.ask({kind: 'steps', count: WARM_UP_STEPS});
  await side.ask({kind: 'matmul', size: MATMUL_SIZE, repeats: 1});
  const firstMs = first.steps[0]?.ms ?? Number.NaN;
  return {side, version, firstMs, turns: [], matmulMs: new Map(), idleCores: [], last: null};
}

/** One turn of a side, while the others are watched for work they should not do. */
async function takeTurn(runner: Running, all: readonly Running[], steps: number): Promise<void> {
  await sleep(SETTLE_MS);
  const others = all.filter((other) => other !== runner);
  const before = await Promise.all(others.map(({side}) => side.use()));
  const begin = performance.now();
  runner.last = await runner.side.ask({kind: 'steps', count: steps});
  runner.turns.push(runner.last.steps);
  const {ms} = await runner.side.ask({kind: 'matmul', size: MATMUL_SIZE, repeats: MATMUL_REPEATS});
  for (const [way, times] of Object.entries(ms))
    runner.matmulMs.set(way, [...(runner.matmulMs.get(way) ?? []), ...times]);
  const seconds = (performance.now() - begin) / 1000;
  for (const [i, other] of others.entries()) {
    const after = await other.side.use();
    const then = before[i];
    if (after && then) other.idleCores.push((after.cpuTicks - then.cpuTicks) / TICKS_A_SECOND / seconds);
  }
}

function lastTurn({side, turns}: Running): string {
  return `${side.name} ${medianMs(turns.at(-1) ?? []).toFixed(0)} ms`;
}
