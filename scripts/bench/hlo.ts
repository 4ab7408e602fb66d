/** One instruction of an XLA module in text form. */
export interface Instruction {
  readonly opcode: string;
  /** Result as XLA writes it, for example `f32[1024,4096]{1,0}`; the braces give the order of axes in memory. */
  readonly type: string;
  /** Size of its results. */
  readonly bytes: number;
  /** The matrix product, or null for anything else. */
  readonly dot: Dot | null;
}

/** Operand shapes of a matrix product, and the axis of each that it sums over. */
export interface Dot {
  readonly left: readonly number[];
  readonly right: readonly number[];
  readonly leftAxes: readonly number[];
  readonly rightAxes: readonly number[];
  /** Two for each multiply-add. */
  readonly flops: number;
}

interface Shape {
  readonly dtype: string;
  readonly axes: readonly number[];
}

const BYTES: Readonly<Record<string, number>> = {pred: 1, s8: 1, u8: 1, bf16: 2, f16: 2, s64: 8, u64: 8, f64: 8};
const WORD_BYTES = 4;

/** Instructions of the entry computation, in order: what runs one after the other, each fusion as one. */
export function entryInstructions(text: string): Instruction[] {
  const lines = text.split('\n');
  const begin = lines.findIndex((line) => line.startsWith('ENTRY '));
  if (begin < 0) return [];
  const end = lines.indexOf('}', begin);
  const shapes = new Map<string, readonly number[]>();
  return lines.slice(begin + 1, end < 0 ? undefined : end).flatMap((line) => parseInstruction(line, shapes) ?? []);
}

/** What instructions of equal cost have in common. */
export function signatureOf({opcode, type, dot}: Instruction): string {
  if (!dot) return `${opcode} ${type}`;
  const operand = (axes: readonly number[], sums: readonly number[]): string => `[${axes.join()}] over ${sums.join()}`;
  return `${opcode} ${type} = ${operand(dot.left, dot.leftAxes)} x ${operand(dot.right, dot.rightAxes)}`;
}

/** Reads a line and remembers the axes of its result, which later lines name as their operand. */
function parseInstruction(line: string, shapes: Map<string, readonly number[]>): Instruction | null {
  const found = /^\s+(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][\w-]*)\((.*)$/.exec(line);
  const [, name, type, opcode, rest] = found ?? [];
  if (!name || !type || !opcode || rest === undefined) return null;
  const results = shapesIn(type);
  const result = results.length === 1 ? results[0]?.axes : undefined;
  if (result) shapes.set(name, result);
  const dot = opcode === 'dot' && result ? parseDot(rest, result, shapes) : null;
  return {opcode, type, bytes: results.reduce((sum, shape) => sum + bytesOf(shape), 0), dot};
}

function parseDot(rest: string, result: readonly number[], shapes: ReadonlyMap<string, readonly number[]>): Dot {
  const operands = [...rest.matchAll(/%([\w.-]+)/g)].map(([, operand]) => shapes.get(operand ?? ''));
  const [left = [], right = []] = operands;
  const leftAxes = axesOf(/lhs_contracting_dims=\{([\d,]*)\}/.exec(rest)?.[1]);
  const rightAxes = axesOf(/rhs_contracting_dims=\{([\d,]*)\}/.exec(rest)?.[1]);
  const flops = 2 * product(result) * product(leftAxes.map((axis) => left[axis] ?? 1));
  return {left, right, leftAxes, rightAxes, flops};
}

/** The array shapes of a type; a tuple has several. */
function shapesIn(type: string): Shape[] {
  const found = type.matchAll(/([a-z]+\d*)\[([\d,]*)\]/g);
  return [...found].map(([, dtype = '', axes]) => ({dtype, axes: axesOf(axes)}));
}

function bytesOf({dtype, axes}: Shape): number {
  return product(axes) * (BYTES[dtype] ?? WORD_BYTES);
}

function axesOf(text: string | undefined): number[] {
  return text ? text.split(',').map(Number) : [];
}

function product(values: readonly number[]): number {
  return values.reduce((a, b) => a * b, 1);
}
