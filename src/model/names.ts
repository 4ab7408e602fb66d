// Our parameters and the tensors of Hugging Face folders: one table a family, read in both directions.

import {numElements} from '../util/shape.js';
import type {FamilyDefinition} from './family/definition.js';
import type {ParameterSpec} from './parameters.js';

/** Where a parameter, or one expert of a stacked one, stands on disk: a tensor, or elements of one that follow each other. */
export interface DiskTensor {
  readonly name: string;
  /** Of the whole tensor. */
  readonly shape: readonly number[];
  /** Element of the tensor that the part begins with; 0 where it is all of it. */
  readonly offset: number;
  /** Whether disk has [out, in] where the parameter has [in, out]. */
  readonly isTransposed: boolean;
  /** Elements [begin, end) of the parameter. */
  readonly begin: number;
  readonly end: number;
}

/** A parameter's path, and which of its stacked matrices; what a disk name stands for. */
export interface ParameterName {
  readonly path: string;
  /** The expert, and the one inside it; empty if the parameter is not stacked, or stands in one tensor with all its experts. */
  readonly place: readonly number[];
}

type Names = FamilyDefinition['names'];

/** The number of an expert in a name. */
const EXPERT = /(?<=\.experts\.)\d+(?=\.)/g;

/** What stands for the axes of a stack in a name. */
const AXES = ['{e}', '{i}'];

/** Name, stack and part of an entry such as `x.weight[{e}][1/2]`: see `FamilyDefinition`. */
const ENTRY = /^([^[]+)(\[\{e\}\])?(?:\[(\d)\/(\d)\])?$/;

/** What an entry of a table says. */
interface Entry {
  readonly name: string;
  /** Whether the experts are the first axis of the tensor. */
  readonly isStack: boolean;
  /** Which of how many equal parts of rows. */
  readonly part: number;
  readonly parts: number;
}

/**
 * The tensors that hold a parameter: one, or one for each expert or expert inside one; these may be the same.
 *
 * Linear weights are [out, in] on disk; embedding and head are tables [V, D] in both places.
 */
export function diskTensors({path, shape, role}: ParameterSpec, names: Names): DiskTensor[] {
  const layer = /^layers\.(\d+)/.exec(path)?.[1] ?? '';
  const template = names[path.replace(/^layers\.\d+/, 'layers.{l}')];
  if (template === undefined) throw new Error(`no name table has the parameter ${path}`);
  const {name, isStack, part, parts} = readEntry(template.replace('{l}', layer));
  const depth = isStack ? 1 : AXES.filter((axis) => name.includes(axis)).length;
  const [stack, own] = [shape.slice(0, depth), shape.slice(depth)];
  const isTransposed = role !== 'embedding' && own.length === 2;
  const [rows = 1, ...columns] = isTransposed ? own.toReversed() : own;
  const size = numElements(own);
  return placesIn(stack).map((place, i) => ({
    name: place.reduce((text, at, axis) => text.replace(AXES[axis] ?? '', String(at)), name),
    shape: [...(isStack ? stack : []), parts * rows, ...columns],
    offset: ((isStack ? i : 0) * parts + part) * size,
    isTransposed,
    begin: i * size,
    end: (i + 1) * size,
  }));
}

function readEntry(template: string): Entry {
  const [, name, stack, part = '0', parts = '1'] = ENTRY.exec(template) ?? [];
  if (name === undefined) throw new Error(`a name table has ${template}`);
  return {name, isStack: stack !== undefined, part: Number(part), parts: Number(parts)};
}

/** Every place of a stack, the last axis fastest; of no stack one. */
function placesIn(stack: readonly number[]): number[][] {
  return stack.reduce<number[][]>(
    (places, size) => places.flatMap((place) => Array.from({length: size}, (_, i) => [...place, i])),
    [[]],
  );
}

/** Whether experts of a family stand together in tensors. */
export function joinsExperts(names: Names): boolean {
  return Object.values(names).some((template) => readEntry(template).isStack);
}

/** The parameters that a tensor of this name holds in some model of the family, whole or in part, in the order of the table. */
export function parametersIn(name: string, names: Names): ParameterName[] {
  const layer = /\.layers\.(\d+)\./.exec(name)?.[1];
  const place = [...name.matchAll(EXPERT)].map(([at]) => Number(at));
  const named = name.replace(/(?<=\.layers\.)\d+(?=\.)/, '{l}');
  const template = place.reduce((text, at, axis) => text.replace(`.experts.${at}.`, `.experts.${AXES[axis]}.`), named);
  const paths = Object.keys(names).filter((path) => readEntry(names[path] ?? '').name === template);
  return paths.map((path) => ({path: path.replace('{l}', layer ?? ''), place}));
}
