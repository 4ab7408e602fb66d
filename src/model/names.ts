// Our parameters and the tensors of Hugging Face folders: one table a family, read in both directions.
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

/** A parameter's path, and which of its stacked experts; what a disk name stands for. */
export interface ParameterName {
  readonly path: string;
  readonly expert: number | null;
}

type Names = FamilyDefinition['names'];

/** The tensors that hold a parameter: itself, or one for each expert. */
export function diskTensors({path, shape, role}: ParameterSpec, names: Names): DiskTensor[] {
  const layer = /^layers\.(\d+)/.exec(path)?.[1] ?? '';
  const template = names[path.replace(/^layers\.\d+/, 'layers.{l}')];
  if (template === undefined) throw new Error(`no name table has the parameter ${path}`);
  const named = template.replace('{l}', layer);
  if (!named.includes('{e}')) return [diskTensor(named, shape, 0, role !== 'embedding')];
  const [experts = 0, ...matrix] = shape;
  return Array.from({length: experts}, (_, e) => diskTensor(named.replace('{e}', String(e)), matrix, e, true));
}

/** The parameter that a disk name stands for in some model of the family, or null. */
export function parameterName(name: string, names: Names): ParameterName | null {
  const layer = /\.layers\.(\d+)\./.exec(name)?.[1];
  const expert = /\.experts\.(\d+)\./.exec(name)?.[1];
  const template = name.replace(/(?<=\.layers\.)\d+(?=\.)/, '{l}').replace(/(?<=\.experts\.)\d+(?=\.)/, '{e}');
  const [path] = Object.entries(names).find(([, disk]) => disk === template) ?? [];
  if (path === undefined) return null;
  return {path: path.replace('{l}', layer ?? ''), expert: expert === undefined ? null : Number(expert)};
}

/** Linear weights are [out, in] on disk; embedding and head are tables [V, D] in both places. */
function diskTensor(name: string, shape: readonly number[], index: number, isLinear: boolean): DiskTensor {
  const isTransposed = isLinear && shape.length === 2;
  const size = shape.reduce((product, length) => product * length, 1);
  return {
    name,
    shape: isTransposed ? shape.toReversed() : shape,
    isTransposed,
    begin: index * size,
    end: (index + 1) * size,
  };
}
