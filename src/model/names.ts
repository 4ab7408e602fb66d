// Our parameters and the tensors of Hugging Face folders: one table a family, read in both directions.

import {numElements} from '../util/shape.js';
import type {Architecture} from './architecture.js';
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

/** The number of a layer in a name. */
const LAYER = /(?<=\.(?:layers|blocks)\.)\d+(?=\.)/;

/** The number of an expert in a name. */
const EXPERT = /(?<=\.experts\.)\d+(?=\.)/g;

/** What stands for the axes of a stack in a name. */
const AXES = ['{e}', '{i}'];

/** Name, stack and part of an entry such as `x.weight[{e}][1/2]`: see `FamilyDefinition`. */
const ENTRY = /^([^[]+)(?:\[(\{e\}:?)\])?(?:\[(\d)\/(\d)\]|\[([qkv])\/qkv\])?$/;

/** What an entry of a table says. */
interface Entry {
  readonly name: string;
  /** How the tensor holds all experts: as its first axis, or one after another in its rows; null if it does not. */
  readonly stack: 'axis' | 'rows' | null;
  /** Which of how many equal parts of rows. */
  readonly part: number;
  readonly parts: number;
  /** Whether it is the part of queries, keys or values, which need not be equal. */
  readonly isQkv: boolean;
}

/**
 * The tensors that hold a parameter: one, or one for each expert or expert inside one; these may be the same.
 *
 * Linear weights are [out, in] on disk, but for what goes down where all rows are neurons; embedding and head are tables [V, D]
 * in both places.
 */
export function diskTensors({path, shape, role, isOutput, among}: ParameterSpec, names: Names): DiskTensor[] {
  const layer = /^layers\.(\d+)/.exec(path)?.[1] ?? '';
  const template = names[path.replace(/^layers\.\d+/, 'layers.{l}')];
  if (template === undefined) throw new Error(`no name table has the parameter ${path}`);
  const {name, stack: held, part, parts, isQkv} = readEntry(template.replace('{l}', layer));
  const depth = held ? 1 : AXES.filter((axis) => name.includes(axis)).length;
  const [stack, own] = [shape.slice(0, depth), shape.slice(depth)];
  const isAsHere = held === 'rows' && isOutput; // a row a neuron, as our down projections have it
  const isTransposed = role !== 'embedding' && own.length === 2 && !isAsHere;
  const [rows = 1, ...columns] = isTransposed ? own.toReversed() : own;
  const {before, all} = (isQkv && among) || {before: part * rows, all: parts * rows};
  const lines = held === 'rows' ? [numElements(stack) * all] : [...(held ? stack : []), all];
  const size = numElements(own);
  return placesIn(stack).map((place, i) => ({
    name: place.reduce((text, at, axis) => text.replace(AXES[axis] ?? '', String(at)), name),
    shape: [...lines, ...columns],
    offset: ((held ? i : 0) * all + before) * numElements(columns),
    isTransposed,
    begin: i * size,
    end: (i + 1) * size,
  }));
}

function readEntry(template: string): Entry {
  const [, name, stack, part = '0', parts = '1', which] = ENTRY.exec(template) ?? [];
  if (name === undefined) throw new Error(`a name table has ${template}`);
  const held = stack === undefined ? null : stack.endsWith(':') ? 'rows' : 'axis';
  return {name, stack: held, part: Number(part), parts: Number(parts), isQkv: which !== undefined};
}

/** Every place of a stack, the last axis fastest; of no stack one. */
function placesIn(stack: readonly number[]): number[][] {
  return stack.reduce<number[][]>(
    (places, size) => places.flatMap((place) => Array.from({length: size}, (_, i) => [...place, i])),
    [[]],
  );
}

/** The tensors of ones of a model, as its family has them. */
export function onesTensors({ones = []}: Pick<FamilyDefinition, 'ones'>, {width, ffn}: Architecture) {
  const ofLayers = (name: string): string[] =>
    name.includes('{l}') ? ffn.map((_, l) => name.replace('{l}', String(l))) : [name];
  return ones.flatMap(ofLayers).map((name) => ({name, shape: [width]}));
}

/** The parameters that a tensor of this name holds in some model of the family, whole or in part, in the order of the table. */
export function parametersIn(name: string, names: Names): ParameterName[] {
  const layer = LAYER.exec(name)?.[0];
  const place = [...name.matchAll(EXPERT)].map(([at]) => Number(at));
  const named = name.replace(LAYER, '{l}');
  const template = place.reduce((text, at, axis) => text.replace(`.experts.${at}.`, `.experts.${AXES[axis]}.`), named);
  const paths = Object.keys(names).filter((path) => readEntry(names[path] ?? '').name === template);
  return paths.map((path) => ({path: path.replace('{l}', layer ?? ''), place}));
}
