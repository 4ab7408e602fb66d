import type {LayerRouting} from '../eval/routing.js';
import {formatPercent} from '../util/percent.js';
import {type EvaluationTable, left, type RoutedModel, right} from './evaluation-tables.js';

/** Pairs, experts and texts that a table names at most: it is for a terminal. */
const MOST_PAIRS = 2;
const MOST_EXPERTS = 2;
const MOST_UNUSED = 4;
const MOST_TEXTS = 6;

/** What routers did, a row a layer: how even loads are, what goes together, and the experts of each text. */
export function routingTables(routed: RoutedModel): EvaluationTable[] {
  const numTexts = routed.routing.texts.length;
  return [loadTable(routed), ...(numTexts > 1 && numTexts <= MOST_TEXTS ? [textTable(routed)] : [])];
}

function loadTable({model, routing: {texts, layers}}: RoutedModel): EvaluationTable {
  const tokens = texts.reduce((sum, text) => sum + text.tokens, 0);
  const hasTexts = texts.length > 1;
  return {
    title: `Routing of ${model}`,
    columns: [
      right('layer'),
      right('experts'),
      right('of a\ntoken'),
      right('entropy\nof load'),
      right('largest\nover mean'),
      left('never\nused'),
      ...(hasTexts ? [right('texts\napart')] : []),
      left('together more\nthan by chance'),
    ],
    rows: layers.map((layer) => [
      String(layer.layer),
      String(layer.experts),
      String(Number(expertsOfToken(layer).toFixed(2))),
      layer.entropy.toFixed(3),
      layer.peak.toFixed(2),
      unusedText(layer),
      ...(hasTexts ? [(layer.specialisation ?? 0).toFixed(3)] : []),
      pairsText(layer),
    ]),
    notes: [
      `${model}: ${tokens} tokens; entropy is 1 where all experts get as much${hasTexts ? ', texts are 0 apart where they use experts alike, 1 where they share none' : ''}`,
    ],
  };
}

function expertsOfToken({load}: LayerRouting): number {
  return load.reduce((sum, share) => sum + share, 0);
}

function unusedText({unused}: LayerRouting): string {
  if (unused.length === 0) return '-';
  const rest = unused.length - MOST_UNUSED;
  return `${unused.slice(0, MOST_UNUSED).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}

function pairsText({pairs}: LayerRouting): string {
  const named = pairs.slice(0, MOST_PAIRS).map(({experts, lift}) => `${experts.join(' + ')} ×${lift.toFixed(1)}`);
  return named.join(', ') || '-';
}

function textTable({model, routing: {texts, layers}}: RoutedModel): EvaluationTable {
  return {
    title: `Experts of each text, ${model}`,
    columns: [right('layer'), ...texts.map(({name}) => left(name.replaceAll(' ', '\n')))],
    rows: layers.map((layer) => [String(layer.layer), ...texts.map((_, g) => ownExperts(layer, g))]),
    notes: ['experts that a text uses most beyond the mean of all texts, and their share of what it uses'],
  };
}

/** The experts by which a text stands out. */
function ownExperts({share}: LayerRouting, text: number): string {
  const own = share[text] ?? [];
  const excess = own.map((value, e) => value - share.reduce((sum, row) => sum + (row[e] ?? 0), 0) / share.length);
  const ranked = [...excess.keys()].sort((a, b) => (excess[b] ?? 0) - (excess[a] ?? 0));
  const named = ranked.slice(0, MOST_EXPERTS).filter((e) => (excess[e] ?? 0) > 0);
  return named.map((e) => `${e} (${formatPercent(own[e] ?? 0)})`).join(', ') || '-';
}
