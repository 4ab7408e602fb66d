import {createVariable, type Variable} from '../engine/variable.js';
import {openModelFolder} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';
import {architectureFromConfig} from './config.js';
import {loadParameters} from './load.js';
import {type DecoderTree, parameterSpecs, treeOf} from './parameters.js';

/** A model in the engine's memory. */
export interface Model {
  /** Folder or file it was read from. */
  readonly path: string;
  readonly architecture: Architecture;
  /** `config.json` as it stands in the folder, or what a GGUF file says in its place. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly parameters: DecoderTree<Variable>;
  /** What the files hold that the architecture has no place for, one line each. */
  readonly warnings: readonly string[];
  dispose(): void;
}

/**
 * Reads a dense or MoE folder, or a GGUF file, into variables, one parameter at a time.
 *
 * @throws ModelError naming file, tensor or key if the folder is damaged or its kind is unknown.
 */
export async function loadModel(path: string): Promise<Model> {
  const folder = await openModelFolder(path);
  const variables: Variable[] = [];
  const dispose = (): void => {
    for (const variable of variables) variable.dispose();
  };
  try {
    const architecture = architectureFromConfig(folder.config, folder.configFile);
    const warnings = await loadParameters(folder, architecture, (spec, values) => {
      variables.push(createVariable(spec.path, spec.shape, values));
    });
    const parameters = treeOf(parameterSpecs(architecture), variables);
    return {path, architecture, config: folder.config, parameters, warnings, dispose};
  } catch (error) {
    dispose();
    throw error;
  } finally {
    await folder.close();
  }
}
