/** Colours of a chart. */
export interface Theme {
  readonly ink: string;
  /** Axis labels, subtitles. */
  readonly muted: string;
  readonly grid: string;
  readonly paper: string;
  /** One colour an arm, told apart by people with any of the common colour vision deficiencies. */
  readonly arms: readonly string[];
}

export const FONT = 'DejaVu Sans, Verdana, sans-serif';

/** Dashes of the second and later rounds through the colours, when there are more arms than colours. */
const DASHES = [
  {dash: [1, 0], sign: ''},
  {dash: [6, 3], sign: '╌ '},
  {dash: [2, 2], sign: '┈ '},
] as const;

// Okabe and Ito (2008) without yellow, which is too pale for lines; sky blue and orange darkened for thin strokes.
const LIGHT_ARMS = ['#0072b2', '#d55e00', '#009e73', '#c4609a', '#3d3d3d', '#56a5d8', '#b98200'] as const;
const DARK_ARMS = ['#4aa8e0', '#ff8a3d', '#2cc49a', '#e48fc0', '#d8d8d8', '#9bd0f2', '#e6b422'] as const;

/** For files: dark ink on white paper. */
export const LIGHT: Theme = {ink: '#1c1d21', muted: '#5d6067', grid: '#e4e5e8', paper: '#ffffff', arms: LIGHT_ARMS};

/** For a dark page. */
export const DARK: Theme = {ink: '#ececef', muted: '#a4a7ae', grid: '#34363c', paper: '#17181b', arms: DARK_ARMS};

/** For charts inside the page: every colour is a CSS variable, so that one drawing serves light and dark. */
export const PAGE: Theme = {
  ink: 'var(--ink)',
  muted: 'var(--muted)',
  grid: 'var(--grid)',
  paper: 'var(--paper)',
  arms: LIGHT_ARMS.map((_, i) => `var(--arm-${i})`),
};

/** A theme as the CSS variables that PAGE uses. */
export function themeVariables(theme: Theme): string {
  const arms = theme.arms.map((colour, i) => `--arm-${i}:${colour};`).join('');
  return `--ink:${theme.ink};--muted:${theme.muted};--grid:${theme.grid};--paper:${theme.paper};${arms}`;
}

/** The colour of the arm at `index`. */
export function armColour(theme: Theme, index: number): string {
  return theme.arms[index % theme.arms.length] ?? theme.ink;
}

/** The dash pattern of the arm at `index`. */
export function armDash(index: number): number[] {
  return [...roundOf(index).dash];
}

/** What goes before the name of a dashed arm, so that it is not taken for the solid one of the same colour. */
export function armDashSign(index: number): string {
  return roundOf(index).sign;
}

function roundOf(index: number): (typeof DASHES)[number] {
  return DASHES[Math.floor(index / LIGHT_ARMS.length) % DASHES.length] ?? DASHES[0];
}
