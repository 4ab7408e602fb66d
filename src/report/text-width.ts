import * as vega from 'vega';

// Advance widths of DejaVu Sans for the letters 32 to 126, in thousandths of the font size (its hmtx table).
const REGULAR = [
  318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
  636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
  748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
  615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
  337, 636, 838,
] as const;
const OTHER_LETTER = 640;
/** DejaVu Sans Bold is wider by about this much. */
const BOLD = 1.115;

/** The width of a text in DejaVu Sans, in the unit of `fontSize`: exact for ASCII in regular weight, close otherwise. */
export function textWidth(text: string, fontSize: number, isBold = false): number {
  let thousandths = 0;
  for (const letter of text) thousandths += REGULAR[(letter.codePointAt(0) ?? 0) - 32] ?? OTHER_LETTER;
  return (thousandths / 1000) * fontSize * (isBold ? BOLD : 1);
}

interface TextItem {
  readonly fontSize?: number;
  readonly fontWeight?: string | number;
}

declare module 'vega-typings' {
  /** Exported by vega for exactly this purpose, and missing from its types. */
  export const textMetrics: {width: (item: TextItem, text: string | number | null | undefined) => number};
}

/**
 * Tells vega how wide its letters are. Without a canvas it takes 0.8 of the font size for each, which leaves
 * wide empty margins around every chart.
 */
export function useMeasuredText(): void {
  vega.textMetrics.width = ({fontSize, fontWeight}, text) =>
    textWidth(String(text ?? ''), fontSize ?? 11, isBold(fontWeight));
}

function isBold(weight: string | number | undefined): boolean {
  return weight === 'bold' || Number(weight) >= 600;
}
