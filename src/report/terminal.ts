import {styleText} from 'node:util';
import {formatDuration, formatLoss, formatRate} from './number.js';
import {displayWidth} from './table.js';

/** The part of a terminal's stream that is used here; `process.stderr` is one. */
export interface TextStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** How far a training run is. */
export interface TrainProgress {
  /** What runs, e.g. the arm. */
  readonly label: string;
  readonly step: number;
  readonly numSteps: number;
  /** Nats a token; not a number before the first step. */
  readonly loss: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
}

/** One line that tells how long work goes, and makes room for other lines. */
export interface StatusLine {
  /** Shows a new state; drawn at once, later, or not at all if newer states come quickly. */
  update(text: string): void;
  /** Prints a line that stays, above the status line. */
  print(text: string): void;
  /** Ends the status line; the last state stays visible. */
  finish(): void;
}

/** Where and when a status line writes. */
export interface StatusOptions {
  readonly stream: TextStream;
  /** Milliseconds, like `Date.now`. */
  readonly clock?: () => number;
  /** Least milliseconds between two redraws on a terminal. */
  readonly redrawMs?: number;
  /** Least milliseconds between two lines in a log file. */
  readonly lineMs?: number;
}

type Paint = Parameters<typeof styleText>[0];

const CLEAR = '\r\u001b[2K';

/** `downcycle  step 40/120  loss 3.412  45.6k tok/s  1m 20s left`. */
export function trainStatus({label, step, numSteps, loss, tokensPerSecond, secondsLeft}: TrainProgress): string {
  const steps = `step ${String(step).padStart(String(numSteps).length)}/${numSteps}`;
  const left = step >= numSteps ? 'done' : `${formatDuration(secondsLeft)} left`;
  return [label, steps, `loss ${formatLoss(loss)}`, formatRate(tokensPerSecond), left].filter(Boolean).join('  ');
}

/**
 * A status line for long work: one refreshed line on a terminal, elsewhere a plain line now and then.
 *
 * Off a terminal the first state is printed, then one at most every `lineMs`, and the last when the work ends.
 */
export function createStatusLine({
  stream,
  clock = Date.now,
  redrawMs = 100,
  lineMs = 10_000,
}: StatusOptions): StatusLine {
  const isTerminal = stream.isTTY === true;
  const interval = isTerminal ? redrawMs : lineMs;
  let state = '';
  let drawn = '';
  let drawnAt = Number.NEGATIVE_INFINITY;
  const draw = (): void => {
    stream.write(isTerminal ? CLEAR + cutTo(state, (stream.columns ?? 80) - 1) : `${state}\n`);
    drawn = state;
    drawnAt = clock();
  };
  return {
    update(text) {
      state = text;
      if (clock() - drawnAt >= interval) draw();
    },
    print(text) {
      stream.write(isTerminal ? `${CLEAR}${text}\n` : `${text}\n`);
      if (isTerminal && drawn) draw();
    },
    finish() {
      if (state !== drawn) draw();
      if (isTerminal && drawn) stream.write('\n');
      state = drawn = '';
      drawnAt = Number.NEGATIVE_INFINITY;
    },
  };
}

/** Whether to use colour on a stream: a terminal, and neither NO_COLOR nor a dumb one. */
export function wantsColour(stream: TextStream, env: NodeJS.ProcessEnv = process.env): boolean {
  return stream.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
}

/** A function that paints text for this stream; it leaves text as it is where colour is not wanted. */
export function painter(
  stream: TextStream,
  env: NodeJS.ProcessEnv = process.env,
): (paint: Paint, text: string) => string {
  return wantsColour(stream, env)
    ? (paint, text) => styleText(paint, text, {validateStream: false})
    : (_, text) => text;
}

/** Cuts a text to a width, so that a refreshed line never wraps. */
function cutTo(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let cut = '';
  for (const letter of text) {
    if (displayWidth(cut) + displayWidth(letter) > width - 1) break;
    cut += letter;
  }
  return `${cut}…`;
}
