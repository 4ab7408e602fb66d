import {createRequire} from 'node:module';
import type * as resvgJs from '@resvg/resvg-js';
import * as vega from 'vega';
import {compile, type TopLevelSpec} from 'vega-lite';
import {useMeasuredText} from './text-width.js';

/** Where the plotting area lies inside an SVG, in units of its viewBox. */
export interface PlotBox {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** A drawn chart. */
export interface Drawing {
  readonly svg: string;
  /** Size of the viewBox. */
  readonly width: number;
  readonly height: number;
  /** The plotting area of a chart with one panel. */
  readonly plot: PlotBox;
}

/** PNG pixels for one unit of the SVG, so that text stays sharp on dense screens. */
const PNG_SCALE = 2;

/**
 * Draws a Vega-Lite spec as SVG, without a DOM.
 *
 * @param id goes before every id inside the SVG, so that several drawings can share a page.
 */
export async function drawSpec(spec: TopLevelSpec, id: string): Promise<Drawing> {
  useMeasuredText();
  const view = new vega.View(vega.parse(compile(spec).spec), {renderer: 'none'});
  try {
    const raw = await view.toSVG();
    const [width = 0, height = 0] = (/viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(raw)?.slice(1) ?? []).map(Number);
    const [left = 0, top = 0] = (/translate\(([\d.]+),([\d.]+)\)/.exec(raw)?.slice(1) ?? []).map(Number);
    const plot = {left, top, width: view.width(), height: view.height()};
    return {svg: renameIds(raw, id), width, height, plot};
  } finally {
    view.finalize();
  }
}

/** The parts of resvg that are used here. */
export type ResvgModule = Pick<typeof resvgJs, 'Resvg'>;

/**
 * An SVG as PNG bytes at twice its size, or the reason why this machine cannot make one.
 *
 * Text is set in the DejaVu fonts of the package `dejavu-fonts-ttf`: machines that train have no system fonts.
 */
export async function svgToPng(
  svg: string,
  load: () => Promise<ResvgModule> = () => import('@resvg/resvg-js'),
): Promise<{readonly png: Uint8Array} | {readonly missing: string}> {
  const resvg = await load().catch((error: unknown) => String(error).split('\n')[0] ?? '');
  if (typeof resvg === 'string') return {missing: `No PNG was drawn: @resvg/resvg-js does not load here (${resvg}).`};
  const font = {fontFiles: fontFiles(), loadSystemFonts: false, defaultFontFamily: 'DejaVu Sans'};
  const image = new resvg.Resvg(svg, {font, fitTo: {mode: 'zoom', value: PNG_SCALE}, background: '#ffffff'});
  return {png: image.render().asPng()};
}

function fontFiles(): string[] {
  const {resolve} = createRequire(import.meta.url);
  return ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((file) => resolve(`dejavu-fonts-ttf/ttf/${file}`));
}

/** Renames all ids to `name-0`, `name-1`...: vega numbers them through the whole process, so no drawing would be like another. */
function renameIds(svg: string, name: string): string {
  const renamed = new Map<string, string>();
  const rename = (id: string): string => {
    const known = renamed.get(id) ?? `${name}-${renamed.size}`;
    renamed.set(id, known);
    return known;
  };
  return svg.replaceAll(/(\sid="|url\(#)([\w-]+)/g, (_, start: string, id: string) => start + rename(id));
}
