import {DARK, LIGHT, themeVariables} from './theme.js';

/** The style sheet of the page: one column on a phone, light or dark as the reader's system is. */
export const STYLE = `
:root{color-scheme:light dark;${themeVariables(LIGHT)}}
@media(prefers-color-scheme:dark){:root{${themeVariables(DARK)}}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"DejaVu Sans",Verdana,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:40px 0 12px}
p{margin:0 0 12px;max-width:75ch}
.lead,.note,figcaption{color:var(--muted)}
.note,figcaption{font-size:.875rem}
.warning{border-left:4px solid var(--arm-1);padding-left:12px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9375rem}
th,td{padding:6px 18px 6px 0;text-align:right;white-space:nowrap;vertical-align:bottom}
th{color:var(--muted);font-weight:400;font-size:.8125rem;line-height:1.25;border-bottom:1px solid var(--muted)}
td{border-bottom:1px solid var(--grid)}
.scroll+.note{margin-top:10px}
.left{text-align:left}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:50%;margin-right:.5em}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:28px 32px;align-items:start}
figure{margin:0;min-width:0}
.picture{position:relative;width:fit-content;max-width:100%}
svg{display:block;max-width:100%;height:auto}
.cursor{position:absolute;width:1px;background:var(--muted);pointer-events:none;display:none}
output{display:flex;flex-wrap:wrap;gap:0 1.25em;align-content:start;min-height:3em;font-size:.875rem;font-variant-numeric:tabular-nums}
output span{white-space:nowrap}
details{margin:0 0 8px}
summary{cursor:pointer}
pre{overflow-x:auto;font-size:.8125rem;line-height:1.45;border:1px solid var(--grid);border-radius:6px;padding:12px}
code{font-size:.875em}
@media(max-width:560px){main{padding:20px 14px 48px}th,td{padding-right:11px}table{font-size:.8125rem}th{font-size:.75rem}}
@media print{details{display:none}}
`;

/**
 * The script of the page: moving over a chart reads its curves out below it. Without it the page is whole.
 *
 * It takes everything from the embedded data, puts names into the page as text only, and talks to nobody.
 */
export const SCRIPT = `
(() => {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const short = (v) => {
    const n = Number(v.toPrecision(3));
    const unit = [[1e18, 'E'], [1e15, 'P'], [1e12, 'T'], [1e9, data.x === 'flops' ? 'G' : 'B'], [1e6, 'M'], [1e3, 'k']].find(([size]) => n >= size);
    return unit ? (n / unit[0]).toPrecision(3) + unit[1] : String(Math.round(n));
  };
  const lossAt = (points, x) => {
    if (!points.length || x < points[0].x || x > points[points.length - 1].x) return null;
    const i = points.findIndex((p) => p.x >= x);
    const b = points[i], a = points[i - 1] || b;
    return b.x === a.x ? b.loss : a.loss + (b.loss - a.loss) * (x - a.x) / (b.x - a.x);
  };
  for (const figure of document.querySelectorAll('figure[data-kind]')) {
    const {kind, left, width, top, height, total, end} = figure.dataset;
    const picture = figure.querySelector('.picture'), cursor = figure.querySelector('.cursor'), output = figure.querySelector('output');
    const clear = () => { cursor.style.display = 'none'; output.textContent = ''; };
    picture.addEventListener('pointerleave', clear);
    picture.addEventListener('pointermove', (event) => {
      const box = picture.getBoundingClientRect(), scale = box.width / total;
      const at = (event.clientX - box.left) / scale - left;
      if (at < 0 || at > width) return clear();
      const x = at / width * end;
      cursor.style.cssText = 'display:block;left:' + (+left + at) * scale + 'px;top:' + top * scale + 'px;height:' + height * scale + 'px';
      output.textContent = '';
      const say = (text, colour) => {
        const span = output.appendChild(document.createElement('span'));
        span.textContent = text;
        if (colour) span.style.color = colour;
      };
      say(short(x) + ' ' + data.unit);
      data.arms.forEach((arm, i) => {
        const loss = lossAt(arm[kind], x);
        if (loss !== null) say(arm.label + ' ' + loss.toFixed(3), 'var(--arm-' + i % data.colours + ')');
      });
    });
  }
})();
`;
