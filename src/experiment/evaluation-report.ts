import {join} from 'node:path';
import type {Evaluation} from '../eval/evaluate.js';
import type {LayerRouting} from '../eval/routing.js';
import {readableJson} from '../format/json.js';
import {fairRatios, type HeatMap, heatMapSpec, loadHeatMap} from '../report/heat-map.js';
import {escapeHtml} from '../report/html.js';
import {htmlTable, plainFigure, plainPage} from '../report/plain-page.js';
import {drawSpec} from '../report/render.js';
import {PAGE} from '../report/theme.js';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {type EvaluationTable, evaluationTables, type RoutedModel, routedModels} from './evaluation-tables.js';

/** Cells that the heat maps of one kind have at most together: a page of more is slow. */
const MOST_CELLS = 12_000;

/** What was written. */
export interface WrittenEvaluation {
  readonly page: string;
  readonly json: string;
}

/**
 * Writes an evaluation into a new folder: `index.html` with its tables and heat maps of its routers, `evaluation.json` with all.
 *
 * @throws EnvironmentError if something stands there, or nothing can be written.
 */
export async function writeEvaluation(out: string, evaluation: Evaluation): Promise<WrittenEvaluation> {
  const page = await evaluationPage(evaluation);
  await writeFolderAtomic(out, async (part) => {
    await writeFileAtomic(join(part, 'index.html'), page);
    await writeFileAtomic(join(part, 'evaluation.json'), `${readableJson(evaluation)}\n`);
  });
  return {page: join(out, 'index.html'), json: join(out, 'evaluation.json')};
}

async function evaluationPage(evaluation: Evaluation): Promise<string> {
  const {model, against} = evaluation;
  const maps: string[] = [];
  for (const [m, routed] of routedModels(evaluation).entries()) maps.push(...(await routingSections(routed, m)));
  return plainPage({
    title: `Evaluation of ${model}${against ? ` and ${against.model}` : ''}`,
    lead: 'Measured in float32. ± is a standard error.',
    body: [...evaluationTables(evaluation).map(tableSection), ...maps].join('\n'),
  });
}

function tableSection({title, columns, rows, notes}: EvaluationTable): string {
  const said = notes.map((note) => `<p class="note">${escapeHtml(note)}</p>`);
  return [`<h2>${escapeHtml(title)}</h2>`, htmlTable(columns, rows), ...said].join('\n');
}

/** A picture to be drawn, and what it shows. */
interface Picture {
  readonly map: HeatMap;
  readonly description: string;
}

async function routingSections({model, routing: {texts, layers}}: RoutedModel, m: number): Promise<string[]> {
  const names = texts.map(({name}) => name);
  const ofTexts = names.length > 1 ? spread(layers, ({share}) => cellsOf(share)) : [];
  const ofPairs = spread(
    layers.filter(({topK}) => topK > 1),
    ({lift}) => cellsOf(lift),
  );
  return [
    await section(`load-${m}`, `Load of experts, ${model}`, LOAD_NOTE, [loadPicture(layers)]),
    await section(
      `texts-${m}`,
      `Experts of each text, ${model}`,
      partly('Of what a text uses, the share of each expert, over an even one.', ofTexts, layers),
      ofTexts.map((layer) => textPicture(layer, names)),
    ),
    await section(
      `pairs-${m}`,
      `Experts used together, ${model}`,
      partly(
        'How often tokens use two experts both, over what chance has if each is chosen by itself.',
        ofPairs,
        layers,
      ),
      ofPairs.map(pairPicture),
    ),
  ];
}

const LOAD_NOTE =
  'Tokens each expert got, over the fair share of its layer: 1 is balance, 0 an expert that is never chosen.';

/** A note that says so where not all layers are shown. */
function partly(note: string, shown: readonly LayerRouting[], all: readonly LayerRouting[]): string {
  const few = shown.length < all.length ? ` ${shown.length} of ${all.length} layers; evaluation.json has all.` : '';
  return `${note}${few}`;
}

/** As many layers, from the first to the last, as have so few cells that a page can hold them. */
function spread(layers: readonly LayerRouting[], cells: (layer: LayerRouting) => number): LayerRouting[] {
  const most = Math.max(1, ...layers.map(cells));
  const count = Math.min(layers.length, Math.max(1, Math.floor(MOST_CELLS / most)));
  const step = count > 1 ? (layers.length - 1) / (count - 1) : 0;
  return Array.from({length: count}, (_, i) => layers[Math.round(i * step)] as LayerRouting);
}

function cellsOf(rows: readonly (readonly unknown[])[]): number {
  return rows.reduce((sum, row) => sum + row.length, 0);
}

async function section(id: string, title: string, note: string, pictures: readonly Picture[]): Promise<string> {
  if (pictures.length === 0) return '';
  const figures: string[] = [];
  for (const [i, {map, description}] of pictures.entries()) {
    const {svg} = await drawSpec(heatMapSpec(map, PAGE), `${id}-${i}`);
    figures.push(plainFigure(svg, description));
  }
  return `<h2>${escapeHtml(title)}</h2>\n<p class="note">${escapeHtml(note)}</p>\n<div class="charts">${figures.join('\n')}</div>`;
}

/** Layers go by their numbers in the model, of which some may have no experts. */
function loadPicture(layers: readonly LayerRouting[]): Picture {
  const isNumbered = layers.every(({layer}, i) => layer === i);
  const names = layers.map(({layer}) => String(layer));
  return {
    map: {
      title: 'Load by layer',
      note: '',
      ...loadHeatMap(layers.map(({load}) => load)),
      rows: {title: 'Layer', ...(!isNumbered && {names})},
    },
    description: `Heat map of expert load: ${layers.length} MoE layers.`,
  };
}

function textPicture({layer, share, specialisation}: LayerRouting, names: readonly string[]): Picture {
  return {
    map: {
      title: `Layer ${layer}`,
      note: `texts ${(specialisation ?? 0).toFixed(3)} apart`,
      ratios: fairRatios(share),
      columns: 'Routed expert',
      rows: {title: null, names},
      legend: {title: ['Share', '(1 = even)'], most: 4},
    },
    description: `Heat map of the experts that ${names.join(', ')} use in layer ${layer}.`,
  };
}

/** An expert with itself says nothing: the diagonal is blank. */
function pairPicture({layer, lift, pairs: [first]}: LayerRouting): Picture {
  return {
    map: {
      title: `Layer ${layer}`,
      note: first ? `most: ${first.experts.join(' + ')}, ×${first.lift.toFixed(1)}` : 'no pair more than by chance',
      ratios: lift.map((row, i) => row.map((value, j) => (i === j ? null : value))),
      columns: 'Routed expert',
      rows: {title: 'Routed expert'},
      legend: {title: ['Together', '(1 = chance)'], most: 4},
    },
    description: `Heat map of experts used together in layer ${layer}.`,
  };
}
