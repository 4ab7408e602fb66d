import type {Architecture, Family} from '../architecture.js';

/** A `config.json` as parsed. */
export type ConfigRecord = Readonly<Record<string, unknown>>;

/** All that sets one Hugging Face `model_type` apart. */
export interface FamilyDefinition {
  readonly modelType: Family;
  /** The transformers class that `architectures` names. */
  readonly className: string;
  /**
   * Path of each parameter to its name on disk. `{l}` stands for the layer, `{e}` for the expert, `{i}` for the one inside it.
   *
   * Behind the name stands where in the tensor a parameter is that shares it: `x[{e}]` if experts are the first axis of x,
   * `x[0/2]` for the first of two equal parts of its rows, `x[{e}][0/2]` for that of each expert; `x[q/qkv]` for the part of its
   * rows that are the queries, where keys and values follow; `x[{e}:]` if experts follow each other in its rows, which are neurons
   * in all three of their matrices.
   */
  readonly names: Readonly<Record<string, string>>;
  /** There where experts stand together in tensors: the family of dense models it grew out of, in whose names each is by itself. */
  readonly apart?: Family;
  /** Tensors of ones, as wide as the model, where the family has weights of norms that have no parameter here; default none. */
  readonly ones?: readonly string[];
  /** Tensors that old versions of transformers saved and nobody needs. */
  readonly isObsolete: (name: string) => boolean;
  /** The architecture that a config describes. @throws ModelError naming `file` and the key that does not fit. */
  readonly readConfig: (config: ConfigRecord, file: string) => Architecture;
  /** There in a family of mixtures: whether its own config can say the layers and the routing of an architecture. */
  readonly saysExperts?: (architecture: Architecture) => boolean;
  /** The family's keys for an architecture, in the form (transformers 4 or 5) that `source` is written in. */
  readonly configKeys: (architecture: Architecture, ffnWidth: number, source: ConfigRecord) => ConfigRecord;
}
