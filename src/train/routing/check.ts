// What can be told of `train.routing` before a step is run.
import {type Architecture, type MoeLayout, moeLayouts} from '../../model/architecture.js';
import {ConfigError} from '../../util/errors.js';
import type {TrainOptions} from '../options.js';
import {rowsOfExpert} from './expert-choice.js';
import {numDropped} from './perturb.js';

/** What decides whether a way of routing is possible. */
export interface RoutingCase extends Pick<TrainOptions, 'routing' | 'balance' | 'capacity'> {
  readonly architecture: Architecture;
  /** T, of a pass. */
  readonly tokens: number;
}

/**
 * Refuses a way of routing that a model cannot be trained with.
 *
 * @throws ConfigError naming the key.
 */
export function requireRoutable(given: RoutingCase): void {
  const {routing, architecture} = given;
  const layouts = moeLayouts(architecture);
  if (layouts.length === 0) return;
  requireChoiceWithinReach(given);
  switch (routing.kind) {
    case 'as-is':
    case 'jitter':
    case 'noisy':
      return;
    case 'expert-dropout':
      for (const [layer, layout] of numbered(architecture)) requireDroppable(routing.share, layer, layout);
      requireUnmovedBiases(given);
      return;
    case 'all-experts':
      requireNoInner(given, layouts);
      requireMovable(given);
      requireDropless(given);
      return;
    case 'expert-choice':
      requireUnbalanced(given, layouts);
      requireNoInner(given, layouts);
      requirePlainScores(given);
      for (const [layer, layout] of numbered(architecture)) requireRows(routing.capacityFactor, given, layer, layout);
      return;
    case 'base':
      requireTopK(given, layouts, 1);
      requireUnbalanced(given, layouts);
      return;
    case 'sparse-mixer':
      requireTopK(given, layouts, 2);
      requireReach(given);
      return;
  }
}

/** The layers of experts with their numbers. */
function numbered({ffn}: Architecture): [layer: number, MoeLayout][] {
  return ffn.flatMap((layout, layer): [number, MoeLayout][] => (layout.kind === 'moe' ? [[layer, layout]] : []));
}

/** A biased choice could fall on experts out of reach, which weigh nothing. */
function requireChoiceWithinReach({architecture, balance}: RoutingCase): void {
  if (architecture.routing.reach === undefined || balance.kind !== 'bias') return;
  throw new ConfigError('train.balance.kind: bias moves choices, which the reach of this model (moe.routing) bounds.', {
    hint: 'Set another train.balance.kind, for example aux.',
  });
}

function requireDroppable(share: number, layer: number, {experts, topK}: MoeLayout): void {
  const dropped = numDropped(share, experts);
  if (dropped > 0 && experts - dropped > topK) return;
  const found = `train.routing.share: ${share} of the ${experts} experts of layer ${layer} is ${dropped}, and a token uses ${topK}`;
  if (topK + 1 >= experts) {
    throw new ConfigError(`${found}: none can be left out with more remaining than that.`, {
      hint: 'Leave train.routing out, or take another kind.',
    });
  }
  throw new ConfigError(`${found}: ${dropped > 0 ? 'more than that must remain' : 'at least one must be left out'}.`, {
    hint: `A share from ${upTo3(1 / experts)} to ${upTo3((experts - topK - 1) / experts)} fits.`,
  });
}

function upTo3(share: number): string {
  return String(Math.round(share * 1000) / 1000);
}

/** An expert that is left out has no load, which is no reason to favour it. */
function requireUnmovedBiases({routing: {kind}, balance}: RoutingCase): void {
  if (balance.kind !== 'bias') return;
  throw new ConfigError(
    `train.balance.kind: bias would move towards experts that train.routing.kind ${kind} leaves out.`,
    {
      hint: 'Set another train.balance.kind, for example aux.',
    },
  );
}

/** Where every expert gets every token, loads are even whatever routers do: only the spread of scores can be evened. */
function requireMovable({routing: {kind}, balance}: RoutingCase): void {
  if (balance.kind === 'none' || balance.kind === 'cv2') return;
  throw new ConfigError(
    `train.balance.kind is ${balance.kind}, but train.routing.kind ${kind} gives every expert every token.`,
    {hint: 'Set train.balance.kind: none, or cv2, which evens out scores.'},
  );
}

/** Outside training experts must weigh what they weigh in it. */
function requireReach({routing: {kind}, architecture}: RoutingCase): void {
  if (architecture.routing.reach !== undefined) return;
  throw new ConfigError(
    `train.routing.kind: ${kind} weighs experts by their softmax among those within reach, but the model by all of them.`,
    {
      hint: 'Say "reach": 0.02 under moe.routing in config.json of a copy of the model, with score softmax, order score-then-topk, weight score and no renormalising: it then weighs so outside training, too.',
    },
  );
}

/** Where the choice is even by itself, what would balance it has nothing to do, and biases no say. */
function requireUnbalanced({routing, balance, capacity}: RoutingCase, layouts: readonly MoeLayout[]): void {
  const {kind} = routing;
  if (balance.kind !== 'none') {
    throw new ConfigError(
      `train.balance.kind is ${balance.kind}, but train.routing.kind ${kind} gives every expert as many tokens.`,
      {hint: 'Set train.balance.kind: none.'},
    );
  }
  requireDropless({routing, capacity});
  requireNoBias(kind, layouts);
}

function requireDropless({routing: {kind}, capacity}: Pick<RoutingCase, 'routing' | 'capacity'>): void {
  if (capacity === 'dropless') return;
  throw new ConfigError(
    `train.capacity has a factor, but train.routing.kind ${kind} gives every expert as many tokens.`,
    {hint: 'Leave train.capacity out.'},
  );
}

function requireNoBias(kind: string, layouts: readonly MoeLayout[]): void {
  if (!layouts.some(({selectionBias}) => selectionBias)) return;
  throw new ConfigError(`train.routing.kind: ${kind} knows no selection biases, and the model has them.`, {
    hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
  });
}

function requireNoInner({routing: {kind}}: RoutingCase, layouts: readonly MoeLayout[]): void {
  if (!layouts.some(({inner}) => inner)) return;
  throw new ConfigError(`train.routing.kind: ${kind} knows no experts inside experts, and the model has them.`, {
    hint: 'Train it as-is.',
  });
}

/** What is chosen weighs its score over all experts: there is no sum over a token's own to divide by. */
function requirePlainScores({routing: {kind}, architecture: {routing}}: RoutingCase): void {
  const {weight, renormalise, order, score, topP, reach} = routing;
  if (reach !== undefined) {
    throw new ConfigError(`train.routing.kind: ${kind} knows no reach of experts, and the model has one.`, {
      hint: 'Train it as-is, or with sparse-mixer.',
    });
  }
  if (topP !== undefined) {
    throw new ConfigError(`train.routing.kind: ${kind} knows no top p, and the model has one.`, {
      hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
    });
  }
  if (weight === 'one-plus-scaled') {
    throw new ConfigError(`train.routing.kind: ${kind} weighs by scores, but the model by 1 + u x score.`, {
      hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
    });
  }
  if (weight === 'one' || !(renormalise || (order === 'topk-then-score' && score === 'softmax'))) return;
  throw new ConfigError(
    `train.routing.kind: ${kind} weighs by scores over all experts, but the model divides by the sum of a token's own.`,
    {hint: 'Train it as-is, or begin with a model whose weights are not renormalised.'},
  );
}

function requireTopK({routing: {kind}}: RoutingCase, layouts: readonly MoeLayout[], most: number): void {
  const topK = Math.max(...layouts.map((layout) => layout.topK));
  if (topK <= most) return;
  const words = ['no', 'one', 'two'];
  throw new ConfigError(
    `train.routing.kind: ${kind} gives each token ${words[most]} expert${most > 1 ? 's at most' : ''}, the tokens of this model use ${topK}.`,
    {hint: `Begin with a model of topK ${most}, or train it as-is.`},
  );
}

function requireRows(capacityFactor: number, {tokens}: RoutingCase, layer: number, layout: MoeLayout): void {
  const rows = rowsOfExpert(capacityFactor, tokens, layout);
  if (rows >= 1 && rows <= tokens) return;
  throw new ConfigError(
    `train.routing.capacityFactor: ${capacityFactor} gives each of the ${layout.experts} experts of layer ${layer} ${rows} of the ${tokens} tokens of a pass.`,
    {hint: rows < 1 ? 'Raise it, or train.batch.sequences.' : 'Lower it.'},
  );
}

const CHOOSERS = {'expert-choice': 'Experts choose their tokens', base: 'Tokens are assigned to experts together'};

/** What a person should know of a way of routing, in words; null if nothing. */
export function routingNote({kind}: TrainOptions['routing'], {ffn}: Architecture): string | null {
  if (kind === 'as-is') return null;
  if (ffn.every((layout) => layout.kind === 'dense')) return null; // `ignoredWithoutExperts` says so
  const notes: string[] = [];
  if (kind in CHOOSERS) {
    notes.push(
      `${CHOOSERS[kind as keyof typeof CHOOSERS]} (train.routing): later tokens take part in the choice, so the training loss looks better than it is. Validation, and the model that is saved, route each token by itself.`,
    );
  }
  if (ffn.some((layout) => layout.kind === 'moe' && layout.inner))
    notes.push(`train.routing (${kind}) acts on the routers of layers, not on those inside experts.`);
  return notes.length > 0 ? notes.join(' ') : null;
}
