import type {Architecture, FfnLayout, InnerLayout, RouterKind} from './architecture.js';

/** The three matrices of a GLU: [D, F], [D, F], [F, D]; with a leading expert axis when stacked. */
export interface GluTree<T> {
  readonly gate: T;
  readonly up: T;
  readonly down: T;
}

/** The matrices of a router; those its kind has not are null: see `RouterKind`. */
export interface RouterTree<T> {
  /** [D, E]; [D, E·r] of an autonomy router. */
  readonly router: T;
  /** [D, E], of a representative router. */
  readonly routerUp: T | null;
  /** [E, E], of an mlp router. */
  readonly routerOut: T | null;
}

/** The experts inside of G routed experts, e in each, and the representative routers that choose them. */
export interface InnerTree<T> {
  /** [G, D, e] */
  readonly router: T;
  /** [G, D, e] */
  readonly routerUp: T;
  /** Stacked [G, e, ...]. */
  readonly experts: GluTree<T>;
}

/** The feed-forward parameters of a layer. */
export type FfnTree<T> =
  | ({readonly kind: 'dense'} & GluTree<T>)
  | ({
      readonly kind: 'moe';
      /** [E], or null without a selection bias. */
      readonly bias: T | null;
      /** [E], what scores count in the weights `1 + u·s`; null where those are others. */
      readonly scale: T | null;
      readonly shared: GluTree<T> | null;
      /** [D, 1], what the shared expert's result is gated by; null without. */
      readonly sharedGate: T | null;
      /** Stacked [E, ...]. */
      readonly experts: GluTree<T>;
      /** [E, D], added to what each expert's down projection gives; null without. */
      readonly expertBias: T | null;
      /** Null where experts have no experts inside. */
      readonly inner: InnerTree<T> | null;
    } & RouterTree<T>);

/** The parameters of an attention part; what the family does not have is null. */
export type AttentionTree<T> = {
  /** [D, H·d] */
  readonly q: T;
  readonly k: T;
  readonly v: T;
  /** [H·d, D] */
  readonly o: T;
  readonly qBias: T | null;
  readonly kBias: T | null;
  readonly vBias: T | null;
  readonly oBias: T | null;
  /** [d], or [H·d] for all heads together. */
  readonly qNorm: T | null;
  readonly kNorm: T | null;
};

/** The parameters of one decoder layer; norms without a weight are null. */
export interface LayerTree<T> {
  readonly attentionNorm: T | null;
  readonly attention: AttentionTree<T>;
  readonly ffnNorm: T | null;
  readonly ffn: FfnTree<T>;
}

/** One leaf for every parameter of a decoder: variables, tensors, gradients or descriptions. */
export interface DecoderTree<T> {
  /** [V, D] */
  readonly embed: T;
  readonly layers: readonly LayerTree<T>[];
  readonly norm: T | null;
  /** [V, D], or null when tied to the embedding. */
  readonly head: T | null;
}

/**
 * What part of the model a parameter is: decides decay, learning-rate group and initialisation. `bias` and `scale` are a
 * router's, which are stored with its precision; the gate of a shared expert is a `router`, since it weighs what that gives.
 */
export type Role =
  | 'embedding'
  | 'norm'
  | 'attention'
  | 'attention-bias'
  | 'ffn'
  | 'router'
  | 'bias'
  | 'scale'
  | 'shared'
  | 'expert'
  | 'expert-bias';

/** A parameter's name, shape and part. Matrices are [in, out]; stacked experts [E, in, out], those inside [G, e, in, out]. */
export interface ParameterSpec {
  /** Path in the tree, for example `layers.3.ffn.experts.gate`: key of optimizer state. */
  readonly path: string;
  readonly shape: readonly number[];
  readonly role: Role;
  /** Whether the matrix writes into the residual stream; its initial scale shrinks with depth. */
  readonly isOutput: boolean;
  /** There if it gives queries, keys or values, which some families have in one matrix: outputs before its own there, and all. */
  readonly among?: {readonly before: number; readonly all: number};
}

/** Describes every parameter of an architecture. */
export function parameterSpecs(architecture: Architecture): DecoderTree<ParameterSpec> {
  const {vocab, width: D, tied, ffn} = architecture;
  const norm = (path: string): ParameterSpec | null =>
    architecture.norm.kind === 'rms' ? specOf(path, [D], 'norm') : null;
  const layer = (layout: FfnLayout, l: number): LayerTree<ParameterSpec> => ({
    attentionNorm: norm(`layers.${l}.attentionNorm`),
    attention: attentionSpecs(architecture, `layers.${l}.attention`),
    ffnNorm: norm(`layers.${l}.ffnNorm`),
    ffn: ffnSpecs(layout, `layers.${l}.ffn`, architecture),
  });
  return {
    embed: specOf('embed', [vocab, D], 'embedding'),
    layers: ffn.map(layer),
    norm: norm('norm'),
    head: tied ? null : specOf('head', [vocab, D], 'embedding'),
  };
}

function specOf(path: string, shape: readonly number[], role: Role, isOutput = false): ParameterSpec {
  return {path, shape, role, isOutput};
}

function attentionSpecs(
  {width: D, heads, kvHeads, headDim, attentionBias, qkNorm}: Architecture,
  path: string,
): AttentionTree<ParameterSpec> {
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const projection = (name: string, size: number, before: number): ParameterSpec => ({
    ...specOf(`${path}.${name}`, [D, size], 'attention'),
    among: {before, all: queries + 2 * keys},
  });
  const bias = (name: string, size: number, isThere: boolean): ParameterSpec | null =>
    isThere ? specOf(`${path}.${name}`, [size], 'attention-bias') : null;
  const norm = (name: string, size: number): ParameterSpec | null =>
    qkNorm === 'none' ? null : specOf(`${path}.${name}`, [qkNorm === 'head' ? headDim : size], 'norm');
  return {
    q: projection('q', queries, 0),
    k: projection('k', keys, queries),
    v: projection('v', keys, queries + keys),
    o: specOf(`${path}.o`, [queries, D], 'attention', true),
    qBias: bias('qBias', queries, attentionBias !== 'none'),
    kBias: bias('kBias', keys, attentionBias !== 'none'),
    vBias: bias('vBias', keys, attentionBias !== 'none'),
    oBias: bias('oBias', D, attentionBias === 'qkvo'),
    qNorm: norm('qNorm', queries),
    kNorm: norm('kNorm', keys),
  };
}

function ffnSpecs(layout: FfnLayout, path: string, {width: D, routing}: Architecture): FfnTree<ParameterSpec> {
  if (layout.kind === 'dense') return {kind: 'dense', ...gluSpecs(path, [], D, layout.width, 'ffn')};
  const {experts, expertWidth, sharedWidth, sharedGate, selectionBias, router, rank, expertBias, inner} = layout;
  const isScaled = routing.weight === 'one-plus-scaled';
  return {
    kind: 'moe',
    ...routerSpecs(router, path, D, experts, rank),
    bias: selectionBias ? specOf(`${path}.bias`, [experts], 'bias') : null,
    scale: isScaled ? specOf(`${path}.scale`, [experts], 'scale') : null,
    shared: sharedWidth > 0 ? gluSpecs(`${path}.shared`, [], D, sharedWidth, 'shared') : null,
    sharedGate: sharedGate ? specOf(`${path}.sharedGate`, [D, 1], 'router') : null,
    experts: gluSpecs(`${path}.experts`, [experts], D, expertWidth, 'expert'),
    expertBias: expertBias ? specOf(`${path}.expertBias`, [experts, D], 'expert-bias') : null,
    inner: inner ? innerSpecs(inner, `${path}.inner`, experts, D) : null,
  };
}

function innerSpecs({experts, expertWidth}: InnerLayout, path: string, G: number, D: number): InnerTree<ParameterSpec> {
  return {
    router: specOf(`${path}.router`, [G, D, experts], 'router'),
    routerUp: specOf(`${path}.routerUp`, [G, D, experts], 'router'),
    experts: gluSpecs(`${path}.experts`, [G, experts], D, expertWidth, 'expert'),
  };
}

/** The matrices of the router of a layer whose feed-forward part is at `path`. */
export function routerSpecs(kind: RouterKind, path: string, D: number, E: number, rank = 1): RouterTree<ParameterSpec> {
  return {
    router: specOf(`${path}.router`, [D, kind === 'autonomy' ? E * rank : E], 'router'),
    routerUp: kind === 'representative' ? specOf(`${path}.routerUp`, [D, E], 'router') : null,
    routerOut: kind === 'mlp' ? specOf(`${path}.routerOut`, [E, E], 'router') : null,
  };
}

function gluSpecs(path: string, stack: readonly number[], D: number, F: number, role: Role): GluTree<ParameterSpec> {
  return {
    gate: specOf(`${path}.gate`, [...stack, D, F], role),
    up: specOf(`${path}.up`, [...stack, D, F], role),
    down: specOf(`${path}.down`, [...stack, F, D], role, true),
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
  return {embed, layers, norm: mapLeaf(tree.norm, fn), head: mapLeaf(tree.head, fn)};
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
    attentionNorm: mapLeaf(attentionNorm, fn),
    attention: mapAttention(attention, fn),
    ffnNorm: mapLeaf(ffnNorm, fn),
    ffn: mapFfn(ffn, fn),
  };
}

function mapAttention<A, B>(attention: AttentionTree<A>, fn: (leaf: A) => B): AttentionTree<B> {
  return {
    q: fn(attention.q),
    k: fn(attention.k),
    v: fn(attention.v),
    o: fn(attention.o),
    qBias: mapLeaf(attention.qBias, fn),
    kBias: mapLeaf(attention.kBias, fn),
    vBias: mapLeaf(attention.vBias, fn),
    oBias: mapLeaf(attention.oBias, fn),
    qNorm: mapLeaf(attention.qNorm, fn),
    kNorm: mapLeaf(attention.kNorm, fn),
  };
}

function mapLeaf<A, B>(leaf: A | null, fn: (leaf: A) => B): B | null {
  return leaf === null ? null : fn(leaf);
}

function mapFfn<A, B>(ffn: FfnTree<A>, fn: (leaf: A) => B): FfnTree<B> {
  if (ffn.kind === 'dense') return {kind: 'dense', ...mapGlu(ffn, fn)};
  return {
    kind: 'moe',
    router: fn(ffn.router),
    routerUp: mapLeaf(ffn.routerUp, fn),
    routerOut: mapLeaf(ffn.routerOut, fn),
    bias: mapLeaf(ffn.bias, fn),
    scale: mapLeaf(ffn.scale, fn),
    shared: ffn.shared && mapGlu(ffn.shared, fn),
    sharedGate: mapLeaf(ffn.sharedGate, fn),
    experts: mapGlu(ffn.experts, fn),
    expertBias: mapLeaf(ffn.expertBias, fn),
    inner: ffn.inner && mapInner(ffn.inner, fn),
  };
}

function mapInner<A, B>({router, routerUp, experts}: InnerTree<A>, fn: (leaf: A) => B): InnerTree<B> {
  return {router: fn(router), routerUp: fn(routerUp), experts: mapGlu(experts, fn)};
}

function mapGlu<A, B>({gate, up, down}: GluTree<A>, fn: (leaf: A) => B): GluTree<B> {
  return {gate: fn(gate), up: fn(up), down: fn(down)};
}
