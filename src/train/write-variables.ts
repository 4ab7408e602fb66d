import type {Variable} from '../engine/variable.js';
import {writeSafetensors} from '../format/safetensors-writer.js';
import {readVariable} from './state.js';

/** Writes variables into a folder as float32, one in memory at a time. @param check sees each before it is written. */
export async function writeVariables(
  folder: string,
  variables: ReadonlyMap<string, Variable>,
  check: (name: string, values: Float32Array) => Float32Array = (_, values) => values,
): Promise<void> {
  const entries = [...variables].map(([name, {shape}]) => ({name, dtype: 'F32' as const, shape}));
  await writeSafetensors(folder, entries, async (name) => {
    const variable = variables.get(name);
    if (!variable) throw new Error(`no variable ${name}`);
    return check(name, await readVariable(variable));
  });
}
