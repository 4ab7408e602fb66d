// Our parameters and the tensors of Hugging Face folders: one table a family, read in both directions.

import {numElements} from '../util/shape.js';
import type {FamilyDefinition} from './family/definition.js';
import type {ParameterSpec} from './parameters.js';

/** A tensor on disk that holds a parameter, or one expert of a stacked one. */
export interface DiskTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether disk has [out, in] where the parameter has [in, out]. */
  readonly isTransposed: boolean;
  /** Elements [begin, end) of the parameter. */
  readonly begin: number;
  readonly end: number;
}

/** A parameter's path, and which of its stacked matrices; what a disk name stands for. */
export interface ParameterName {
  readonly path: string;
  /** The expert, and the one inside it; empty if the parameter is not stacked. */
  readonly place: readonly number[];
}

type Names = FamilyDefinition['names'];

/** The number of an expert in a name. */
const EXPERT = /(?<=\.experts\.)\d+(?=\.)/g;

/** What stands for the axes of a stack in a name. */
const AXES = ['{e}', '{i}'];

/** The tensors that hold a parameter: itself, or one for each expert or expert inside one. */
export function diskTensors({path, shape, role}: ParameterSpec, names: Names): DiskTensor[] {
  const layer = /^layers\.(\d+)/.exec(path)?.[1] ?? '';
  const template = names[path.replace(/^layers\.\d+/, 'layers.{l}')];
  if (template === undefined) throw new Error(`no name table has the parameter ${path}`);
  const named = template.replace('{l}', layer);
  const depth = AXES.filter((axis) => named.includes(axis)).length;
  if (depth === 0) return [diskTensor(named, shape, 0, role !== 'embedding')];
  const nameAt = (place: readonly number[]): string =>
    place.reduce((name, at, axis) => name.replace(AXES[axis] ?? '', String(at)), named);
  return placesIn(shape.slice(0, depth)).map((place, i) => diskTensor(nameAt(place), shape.slice(depth), i, true));
}

/** Every place of a stack, the last axis fastest. */
function placesIn(stack: readonly number[]): number[][] {
  return stack.reduce<number[][]>(
    (places, size) => places.flatMap((place) => Array.from({length: size}, (_, i) => [...place, i])),
    [[]],
  );
}

/** The parameter that a disk name stands for in some model of the family, or null. */
export function parameterName(name: string, names: Names): ParameterName | null {
  const layer = /\.layers\.(\d+)\./.exec(name)?.[1];
  const place = [...name.matchAll(EXPERT)].map(([at]) => Number(at));
  const named = name.replace(/(?<=\.layers\.)\d+(?=\.)/, '{l}');
  const template = place.reduce((text, at, axis) => text.replace(`.experts.${at}.`, `.experts.${AXES[axis]}.`), named);
  const [path] = Object.entries(names).find(([, disk]) => disk === template) ?? [];
  if (path === undefined) return null;
  return {path: path.replace('{l}', layer ?? ''), place};
}

/** Linear weights are [out, in] on disk; embedding and head are tables [V, D] in both places. */
function diskTensor(name: string, shape: readonly number[], index: number, isLinear: boolean): DiskTensor {
  const isTransposed = isLinear && shape.length === 2;
  const size = numElements(shape);
  return {
    name,
    shape: isTransposed ? shape.toReversed() : shape,
    isTransposed,
    begin: index * size,
    end: (index + 1) * size,
  };
}
