import type {NeuronCount} from '../../downcycle/neuron-maps.js';
import type {LayerRecord} from '../../downcycle/provenance.js';
import {type TableColumn, textTable} from '../../report/table.js';

/** Told apart without colour, and by every terminal's font. */
const [SHARED, ACTIVE, IDLE] = ['█', '▒', '·'] as const;
const WIDEST_BAR = 40;
const NARROWEST_BAR = 10;

/** Neurons of one layer's dense FFN by what runs for a token. */
interface Shares {
  readonly shared: number;
  readonly active: number;
  /** Those that the token does not need and those that are gone; null if nobody knows how many there were. */
  readonly rest: number | null;
}

/** A column of numbers that some layer has. */
interface Fact {
  readonly title: string;
  /** What it means, for the legend. */
  readonly meaning: string;
  /** Empty in a layer that has none. */
  readonly cells: readonly string[];
}

/** How each layer of a split was cut: a bar, the counts, what else is recorded, and what all that means. */
export function layerText(
  layers: readonly LayerRecord[],
  neurons: readonly NeuronCount[] | null,
  columns: number,
): string {
  const numNeurons = widthOf(layers, neurons);
  const shares = layers.map((layer) => sharesOf(layer, numNeurons));
  const facts = factsOf(layers).filter(({cells}) => cells.some((cell) => cell !== ''));
  const cuts = cutTexts(layers, shares);
  const width = barWidth([...facts.map(({title, cells}) => [title, ...cells]), cuts], columns);
  const right = (title: string): TableColumn => ({title, align: 'right'});
  const rows = layers.map((_, l) => [
    String(l),
    bar(shares[l] as Shares, width),
    cuts[l] ?? '',
    ...facts.map(({cells}) => cells[l] || '-'),
  ]);
  const table = textTable(
    [
      right('layer'),
      {title: `${numNeurons ?? ''} neurons`.trim(), align: 'left'},
      {title: 'cut', align: 'left'},
      ...facts.map(({title}) => right(title)),
    ],
    rows,
  );
  return `${table}\n\n${legend(layers, shares, facts)}`;
}

/** Neurons of each dense FFN; null if nobody knows: a layer without experts does not say how wide it was. */
function widthOf(layers: readonly LayerRecord[], neurons: readonly NeuronCount[] | null): number | null {
  const split = layers.find(({experts}) => experts > 0);
  if (split) return split.sharedWidth + split.experts * split.expertWidth;
  return neurons?.[0] ? neurons[0].shared + neurons[0].leftOut : null;
}

function sharesOf({topK, expertWidth, sharedWidth}: LayerRecord, numNeurons: number | null): Shares {
  const active = topK * expertWidth;
  return {shared: sharedWidth, active, rest: numNeurons === null ? null : numNeurons - sharedWidth - active};
}

/** What the other columns leave, the spaces between them taken off. */
function barWidth(others: readonly (readonly string[])[], columns: number): number {
  const taken = others.reduce((sum, cells) => sum + 2 + Math.max(...cells.map(({length}) => length)), 'layer  '.length);
  return Math.min(WIDEST_BAR, Math.max(NARROWEST_BAR, columns - taken));
}

function bar({shared, active, rest}: Shares, width: number): string {
  if (rest === null) return '?';
  const all = shared + active + rest;
  const [first, second] = [shared, shared + active].map((end) => Math.round((end / all) * width)) as [number, number];
  return SHARED.repeat(first) + ACTIVE.repeat(second - first) + IDLE.repeat(width - second);
}

/** `288 shared + 13 of 20 x 24`, numbers under numbers. */
function cutTexts(layers: readonly LayerRecord[], shares: readonly Shares[]): string[] {
  const pad = (of: (layer: LayerRecord) => number): ((layer: LayerRecord) => string) => {
    const width = Math.max(...layers.map((layer) => String(of(layer)).length));
    return (layer) => String(of(layer)).padStart(width);
  };
  const [shared, topK, experts, width] = [
    pad((layer) => layer.sharedWidth),
    pad((layer) => layer.topK),
    pad((layer) => layer.experts),
    pad((layer) => layer.expertWidth),
  ] as const;
  const hasShared = layers.some(({sharedWidth}) => sharedWidth > 0);
  return layers.map((layer, l) => {
    if (layer.experts === 0) return keptText(shares[l] as Shares);
    const routed = `${topK(layer)} of ${experts(layer)} x ${width(layer)}`;
    return hasShared ? `${shared(layer)} shared + ${routed}` : routed;
  });
}

function keptText({shared, rest}: Shares): string {
  if (rest === null) return `${shared} kept`;
  return rest > 0 ? `${shared} of ${shared + rest} kept` : `all ${shared} shared`;
}

function factsOf(layers: readonly LayerRecord[]): Fact[] {
  const isScaled = layers.some(({routedScale}) => routedScale !== 1);
  return [
    {
      title: 'r',
      meaning: 'share of specialised neurons: those whose CV is above the threshold',
      cells: layers.map(({specialisedShare}) => specialisedShare?.toFixed(2) ?? ''),
    },
    {
      title: 'alpha',
      meaning: 'shared ratio, before it was rounded to whole experts',
      cells: layers.map(({sharedRatio}) => sharedRatio.toFixed(2)),
    },
    {
      title: 'scale',
      meaning: 'factor that the routed experts carry',
      cells: layers.map(({routedScale}) => (isScaled ? routedScale.toFixed(2) : '')),
    },
    {
      title: 'error',
      meaning: 'squared error of the FFN over its dense output, before and after repair',
      cells: layers.map(({error}) => (error ? `${errorText(error.before)} -> ${errorText(error.after)}` : '')),
    },
  ];
}

/** As wide as every other. */
function errorText(value: number): string {
  return value > 0 && value < 0.001 ? '<.001' : value.toFixed(3);
}

function legend(layers: readonly LayerRecord[], shares: readonly Shares[], facts: readonly Fact[]): string {
  const marks = markTexts(layers, shares).join('   ');
  const width = Math.max(...facts.map(({title}) => title.length));
  return [marks, ...facts.map(({title, meaning}) => `${title.padEnd(width)}  ${meaning}`)].join('\n');
}

/** What the parts of the bars are, of those that there are. */
function markTexts(layers: readonly LayerRecord[], shares: readonly Shares[]): string[] {
  if (shares.some(({rest}) => rest === null)) return ['? how many neurons were left out is not recorded'];
  if (layers.every(({experts}) => experts === 0)) return [`${SHARED} kept`, `${IDLE} left out`];
  const shared = layers.some(({sharedWidth}) => sharedWidth > 0) ? [`${SHARED} shared`] : [];
  return [...shared, `${ACTIVE} routed, active for a token`, `${IDLE} routed, idle`];
}
