import type {Architecture, FfnLayout} from './architecture.js';

/** The three matrices of a GLU: [D, F], [D, F], [F, D]; with a leading expert axis when stacked. */
export interface GluTree<T> {
  readonly gate: T;
  readonly up: T;
  readonly down: T;
}

/** The feed-forward parameters of a layer. */
export type FfnTree<T> =
  | ({readonly kind: 'dense'} & GluTree<T>)
  | {
      readonly kind: 'moe';
      /** [D, E] */
      readonly router: T;
      /** [E], or null without a selection bias. */
      readonly bias: T | null;
      readonly shared: GluTree<T> | null;
      /** Stacked [E, ...]. */
      readonly experts: GluTree<T>;
    };

/** The parameters of one decoder layer. */
export interface LayerTree<T> {
  readonly attentionNorm: T;
  readonly attention: {readonly q: T; readonly k: T; readonly v: T; readonly o: T};
  readonly ffnNorm: T;
  readonly ffn: FfnTree<T>;
}

/** One leaf for every parameter of a decoder: variables, tensors, gradients or descriptions. */
export interface DecoderTree<T> {
  /** [V, D] */
  readonly embed: T;
  readonly layers: readonly LayerTree<T>[];
  readonly norm: T;
  /** [V, D], or null when tied to the embedding. */
  readonly head: T | null;
}

/** What part of the model a parameter is: decides decay, learning-rate group and initialisation. */
export type Role = 'embedding' | 'norm' | 'attention' | 'ffn' | 'router' | 'bias' | 'shared' | 'expert';

/** A parameter's name, shape and part. Matrices are [in, out]; stacked experts [E, in, out]. */
export interface ParameterSpec {
  /** Path in the tree, for example `layers.3.ffn.experts.gate`: key of optimizer state. */
  readonly path: string;
  readonly shape: readonly number[];
  readonly role: Role;
  /** Whether the matrix writes into the residual stream; its initial scale shrinks with depth. */
  readonly isOutput: boolean;
}

/** Describes every parameter of an architecture. */
export function parameterSpecs({
  vocab,
  width: D,
  heads,
  kvHeads,
  headDim,
  tied,
  ffn,
}: Architecture): DecoderTree<ParameterSpec> {
  const spec = (path: string, shape: number[], role: Role, isOutput = false): ParameterSpec => ({
    path,
    shape,
    role,
    isOutput,
  });
  const layer = (layout: FfnLayout, l: number): LayerTree<ParameterSpec> => ({
    attentionNorm: spec(`layers.${l}.attentionNorm`, [D], 'norm'),
    attention: {
      q: spec(`layers.${l}.attention.q`, [D, heads * headDim], 'attention'),
      k: spec(`layers.${l}.attention.k`, [D, kvHeads * headDim], 'attention'),
      v: spec(`layers.${l}.attention.v`, [D, kvHeads * headDim], 'attention'),
      o: spec(`layers.${l}.attention.o`, [heads * headDim, D], 'attention', true),
    },
    ffnNorm: spec(`layers.${l}.ffnNorm`, [D], 'norm'),
    ffn: ffnSpecs(layout, `layers.${l}.ffn`, D),
  });
  return {
    embed: spec('embed', [vocab, D], 'embedding'),
    layers: ffn.map(layer),
    norm: spec('norm', [D], 'norm'),
    head: tied ? null : spec('head', [vocab, D], 'embedding'),
  };
}

function ffnSpecs(layout: FfnLayout, path: string, D: number): FfnTree<ParameterSpec> {
  if (layout.kind === 'dense') return {kind: 'dense', ...gluSpecs(path, [], D, layout.width, 'ffn')};
  const {experts, expertWidth, sharedWidth, selectionBias} = layout;
  const one = (name: string, shape: number[], role: Role): ParameterSpec => ({
    path: `${path}.${name}`,
    shape,
    role,
    isOutput: false,
  });
  return {
    kind: 'moe',
    router: one('router', [D, experts], 'router'),
    bias: selectionBias ? one('bias', [experts], 'bias') : null,
    shared: sharedWidth > 0 ? gluSpecs(`${path}.shared`, [], D, sharedWidth, 'shared') : null,
    experts: gluSpecs(`${path}.experts`, [experts], D, expertWidth, 'expert'),
  };
}

function gluSpecs(path: string, stack: readonly number[], D: number, F: number, role: Role): GluTree<ParameterSpec> {
  return {
    gate: {path: `${path}.gate`, shape: [...stack, D, F], role, isOutput: false},
    up: {path: `${path}.up`, shape: [...stack, D, F], role, isOutput: false},
    down: {path: `${path}.down`, shape: [...stack, F, D], role, isOutput: true},
  };
}

/** The leaves in a fixed order: embedding, layers from the first, final norm, head. */
export function leavesOf<T>(tree: DecoderTree<T>): T[] {
  const leaves: T[] = [];
  mapTree(tree, (leaf) => leaves.push(leaf));
  return leaves;
}

/** The same tree with every leaf replaced, in the order of {@link leavesOf}. */
export function mapTree<A, B>(tree: DecoderTree<A>, fn: (leaf: A) => B): DecoderTree<B> {
  const embed = fn(tree.embed);
  const layers = tree.layers.map((layer) => mapLayer(layer, fn));
  return {embed, layers, norm: fn(tree.norm), head: tree.head === null ? null : fn(tree.head)};
}

/** The tree whose leaves are the items of a list in the order of {@link leavesOf}. */
export function treeOf<A, B>(tree: DecoderTree<A>, leaves: readonly B[]): DecoderTree<B> {
  let next = 0;
  return mapTree(tree, () => {
    const leaf = leaves[next++];
    if (leaf === undefined) throw new Error(`a tree needs more than ${leaves.length} leaves`);
    return leaf;
  });
}

/** The same layer with every leaf replaced, in a fixed order. */
export function mapLayer<A, B>(
  {attentionNorm, attention, ffnNorm, ffn}: LayerTree<A>,
  fn: (leaf: A) => B,
): LayerTree<B> {
  return {
    attentionNorm: fn(attentionNorm),
    attention: {q: fn(attention.q), k: fn(attention.k), v: fn(attention.v), o: fn(attention.o)},
    ffnNorm: fn(ffnNorm),
    ffn: mapFfn(ffn, fn),
  };
}

function mapFfn<A, B>(ffn: FfnTree<A>, fn: (leaf: A) => B): FfnTree<B> {
  if (ffn.kind === 'dense') return {kind: 'dense', ...mapGlu(ffn, fn)};
  return {
    kind: 'moe',
    router: fn(ffn.router),
    bias: ffn.bias === null ? null : fn(ffn.bias),
    shared: ffn.shared && mapGlu(ffn.shared, fn),
    experts: mapGlu(ffn.experts, fn),
  };
}

function mapGlu<A, B>({gate, up, down}: GluTree<A>, fn: (leaf: A) => B): GluTree<B> {
  return {gate: fn(gate), up: fn(up), down: fn(down)};
}
