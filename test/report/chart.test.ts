import {createRequire} from 'node:module';
import {Resvg} from '@resvg/resvg-js';
import * as fc from 'fast-check';
import {describe, expect, it, vi} from 'vitest';
import {lossScale, pixelOf, spread} from '../../src/report/axis.js';
import {type LossChart, lossSpec, sideBySide} from '../../src/report/chart.js';
import {fairRatios, heatMapSpec, loadSpec} from '../../src/report/heat-map.js';
import {drawSpec, svgToPng} from '../../src/report/render.js';
import {textWidth} from '../../src/report/text-width.js';
import {armColour, armDash, LIGHT} from '../../src/report/theme.js';

const arm = (label: string, losses: readonly number[], width = 0): LossChart['arms'][number] => ({
  label,
  numSeeds: width > 0 ? 2 : 1,
  points: losses.map((loss, i) => ({x: 1000 * i, loss, low: loss - width, high: loss + width})),
});
const chart = (arms: LossChart['arms'], more: Partial<LossChart> = {}): LossChart => ({
  ...{kind: 'validation', title: 'Validation loss', x: 'tokens', arms, hasMarks: true, notes: ['Held out'], ...more},
});
const draw = async (content: LossChart): Promise<string> => (await drawSpec(lossSpec(content, LIGHT), 'a')).svg;
const strokes = (svg: string, colour: string): number => svg.split(`stroke="${colour}"`).length - 1;

describe('lossScale', () => {
  const losses = fc.array(fc.double({min: 0.01, max: 15, noNaN: true}), {minLength: 1, maxLength: 30});

  it('holds every value inside the axis', () => {
    fc.assert(
      fc.property(losses, (values) => {
        const scale = lossScale(values, 250);
        for (const value of values) {
          const pixel = pixelOf(scale, value, 250);
          expect(pixel).toBeGreaterThanOrEqual(0);
          expect(pixel).toBeLessThanOrEqual(250);
        }
      }),
    );
  });

  it('has at least two ticks inside the axis, far enough apart to be read', () => {
    fc.assert(
      fc.property(losses, (values) => {
        const scale = lossScale(values, 250);
        const pixels = scale.ticks.map((tick) => pixelOf(scale, tick, 250));
        expect(pixels.length).toBeGreaterThanOrEqual(2);
        expect(pixels[0]).toBeGreaterThanOrEqual(-1e-6);
        expect(pixels.at(-1)).toBeLessThanOrEqual(250 + 1e-6);
        for (let i = 1; i < pixels.length; i++) expect(pixels[i]! - pixels[i - 1]!).toBeGreaterThan(12);
      }),
    );
  });

  it('is logarithmic only where the losses lie far apart', () => {
    expect(lossScale([3.4, 8.3], 250).type).toBe('log');
    expect(lossScale([3.4, 4.3], 250).type).toBe('linear');
  });

  it('stands without any value', () => {
    expect(lossScale([], 250).domain).toEqual([0, 1]);
  });
});

describe('spread', () => {
  it('keeps labels apart and inside, in their order', () => {
    fc.assert(
      fc.property(fc.array(fc.double({min: 0, max: 250, noNaN: true}), {minLength: 1, maxLength: 12}), (wanted) => {
        const placed = spread(wanted, 15, 4, 246);
        const order = wanted.map((_, i) => i).sort((a, b) => wanted[a]! - wanted[b]!);
        const sorted = order.map((i) => placed[i]!);
        for (let i = 1; i < sorted.length; i++) expect(sorted[i]! - sorted[i - 1]!).toBeGreaterThan(15 - 1e-6);
        expect(sorted[0]).toBeGreaterThanOrEqual(4 - 1e-6);
        expect(sorted.at(-1)).toBeLessThanOrEqual(246 + 1e-6);
      }),
    );
  });

  it('moves labels that are far apart not at all, and two that meet by the same way', () => {
    expect(spread([200, 20, 100], 15, 0, 250)).toEqual([200, 20, 100]);
    expect(spread([100, 100], 10, 0, 250)).toEqual([95, 105]);
  });
});

describe('lossSpec', () => {
  it('draws a line for each arm in its own colour, and names it', async () => {
    const svg = await draw(chart([arm('downcycle', [5, 4, 3]), arm('scratch', [8, 6, 5])]));
    for (const [i, label] of ['downcycle', 'scratch'].entries()) {
      expect(strokes(svg, armColour(LIGHT, i))).toBe(1);
      expect(svg).toContain(`>${label}</text>`);
    }
  });

  it('draws a band only where there are several seeds', async () => {
    const withBand = await draw(chart([arm('a', [5, 4, 3], 0.1)]));
    const without = await draw(chart([arm('a', [5, 4, 3])]));
    expect(withBand).toContain('opacity="0.18"');
    expect(without).not.toContain('opacity="0.18"');
  });

  it('draws the reference as a dashed rule with its name', async () => {
    const svg = await draw(chart([arm('a', [5, 4])], {reference: {label: 'dense parent', loss: 3.3}}));
    expect(svg).toContain('stroke-dasharray="5,4"');
    expect(svg).toContain('>dense parent</text>');
  });

  it('names both axes with their units, and says when one is logarithmic', async () => {
    const svg = await draw(chart([arm('a', [8, 3])]));
    expect(svg).toContain('Cross-entropy (nats/token, log scale)');
    expect(svg).toContain('Training tokens');
    expect(await draw(chart([arm('a', [8, 3])], {x: 'flops'}))).toContain('Training compute (FLOP)');
  });

  it('says B for billions of tokens and G for billions of operations', async () => {
    const long = {label: 'a', numSeeds: 1, points: [0, 4e9].map((x) => ({x, loss: 3, low: 3, high: 3}))};
    expect(await draw(chart([long]))).toMatch(/>\dB</);
    expect(await draw(chart([long], {x: 'flops'}))).toMatch(/>\dG</);
  });

  it('escapes the names of arms', async () => {
    const svg = await draw(chart([arm('<script>&', [5, 4])]));
    expect(svg).toContain('&lt;script&gt;&amp;');
    expect(svg).not.toContain('<script');
  });

  it('cuts a long name rather than widen the picture', async () => {
    const wide = await drawSpec(lossSpec(chart([arm('expertweaver '.repeat(20), [5, 4])]), LIGHT), 'a');
    const long = await drawSpec(lossSpec(chart([arm('W'.repeat(14), [5, 4])]), LIGHT), 'a');
    expect(wide.svg).toMatch(/>expertweaver [a-z ]*…<\/text>/);
    expect(wide.width).toBeLessThanOrEqual(long.width + 10);
  });

  it('marks a single point, which makes no line', async () => {
    const marks = (svg: string): number => svg.split('mark-symbol').length - 1;
    expect(marks(await draw(chart([arm('a', [5])], {hasMarks: false})))).toBe(1);
    expect(marks(await draw(chart([arm('a', [5, 4])], {hasMarks: false})))).toBe(0);
  });

  it('counts steps in whole numbers', async () => {
    const one = {label: 'a', numSeeds: 1, points: [0, 1].map((x) => ({x, loss: 3, low: 3, high: 3}))};
    expect(await draw(chart([one], {x: 'steps'}))).not.toMatch(/>\d+m</);
  });

  it('gives arms beyond the palette another dash', () => {
    expect(armColour(LIGHT, 7)).toBe(armColour(LIGHT, 0));
    expect(armDash(7)).not.toEqual(armDash(0));
  });

  it('compiles without a warning, alone and side by side, whatever arms lack', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const both = [chart([arm('a', [8, 3], 0.1), arm('b', [])]), chart([arm('a', [4, 3]), arm('b', [5])])];
    await draw(both[0]!);
    const {svg} = await drawSpec(sideBySide(both, LIGHT), 'a');
    expect(svg).toContain('<svg');
    expect(warn.mock.calls).toEqual([]);
    warn.mockRestore();
  });
});

describe('loadSpec', () => {
  it('divides every load by the fair share of its layer', () => {
    const ratios = fairRatios([
      [0.5, 0.25, 0.25, 0],
      [3, 1],
      [0, 0],
    ]);
    expect(ratios).toEqual([
      [2, 1, 1, 0],
      [1.5, 0.5],
      [0, 0],
    ]);
  });

  it('draws one cell an expert of every layer, though layers differ in their number', async () => {
    const load = [
      [0.5, 0.25, 0.25, 0],
      [0.75, 0.25],
    ];
    const {svg} = await drawSpec(loadSpec({label: 'downcycle', load}, LIGHT, 'Last step'), 'a');
    expect(svg.match(/<g class="mark-rect[^>]*>(.*?)<\/g>/s)?.[1]?.match(/<path/g)).toHaveLength(6);
  });
});

describe('heatMapSpec', () => {
  const map = {title: 'Layer 0', note: '', columns: 'Expert', legend: {title: ['Share'], most: 4}};
  const cells = (svg: string): number =>
    svg.match(/<g class="mark-rect[^>]*>(.*?)<\/g>/s)?.[1]?.match(/<path/g)?.length ?? 0;

  it('leaves cells without a ratio blank, and names rows, also two alike', async () => {
    const ratios = [
      [1, null, 2],
      [null, 0.5, 1],
    ];
    const {svg} = await drawSpec(
      heatMapSpec({...map, ratios, rows: {title: null, names: ["it's <b>", "it's <b>"]}}, LIGHT),
      'a',
    );
    expect(cells(svg)).toBe(4);
    expect(svg.split(">it's &lt;b&gt;<")).toHaveLength(3);
  });
});

describe('drawing', () => {
  it('says where the plot lies: its corner is where the axes meet', async () => {
    const drawing = await drawSpec(lossSpec(chart([arm('a', [5, 4])]), LIGHT), 'a');
    expect(drawing.svg).toContain(`translate(${drawing.plot.left},${drawing.plot.top})`);
    expect(drawing.plot.left + drawing.plot.width).toBeLessThan(drawing.width);
    expect(drawing.plot.top + drawing.plot.height).toBeLessThan(drawing.height);
  });

  it('has ids of its own, so that drawings can share a page', async () => {
    const {svg} = await drawSpec(loadSpec({label: 'a', load: [[0.5, 0.5]]}, LIGHT, ''), 'load-3');
    const ids = [...svg.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id!);
    expect(ids.length).toBeGreaterThan(0);
    for (const id of ids) expect(id).toMatch(/^load-3-/);
    for (const [, id] of svg.matchAll(/url\(#([^)]+)\)/g)) expect(ids).toContain(id);
  });

  it('becomes a PNG of twice its size', async () => {
    const {svg, width, height} = await drawSpec(lossSpec(chart([arm('a', [5, 4])]), LIGHT), 'a');
    const image = await svgToPng(svg);
    const png = Buffer.from('png' in image ? image.png : []);
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([2 * width, 2 * height]);
  });

  it('says in one line that there is no PNG where the renderer does not load', async () => {
    const image = await svgToPng('<svg/>', () => Promise.reject(new Error('no such binary\nRequire stack')));
    expect(image).toEqual({missing: 'No PNG was drawn: @resvg/resvg-js does not load here (Error: no such binary).'});
  });
});

describe('textWidth', () => {
  it.each(['downcycle, random-split', 'Cross-entropy (nats/token)', '0123456789.5k'])(
    'is what resvg draws for %s',
    (text) => {
      const file = createRequire(import.meta.url).resolve('dejavu-fonts-ttf/ttf/DejaVuSans.ttf');
      const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="2000" height="100"><text y="50" font-size="40" font-family="DejaVu Sans">${text}</text></svg>`;
      const drawn = new Resvg(svg, {font: {fontFiles: [file], loadSystemFonts: false}}).innerBBox()!.width;
      expect(Math.abs(textWidth(text, 40) - drawn) / drawn).toBeLessThan(0.03);
    },
  );
});
