import {PAPER_RULE, specialisedShare} from '../../downcycle/allocation.js';
import type {Profile, ProfileMetadata} from '../../downcycle/profile-file.js';
import type {ProfileOptions} from '../../downcycle/profile-options.js';
import {cvRows, type LayerProfile, neuronCv} from '../../downcycle/statistics.js';
import {textTable} from '../../report/table.js';

/** How universal the neurons of each layer are, a layer a line. */
export function profileText({layers, metadata}: Profile): string {
  const {options} = metadata;
  const columns = ['layer', 'neurons', 'median\nCV', `CV over\n${PAPER_RULE.cvThreshold}`].map((title) => ({
    title,
    align: 'right' as const,
  }));
  const rows = layers.map((layer, l) => [String(l), String(layer.numNeurons), ...spreadOf(layer, options)]);
  return `${textTable(columns, rows)}\n\n${calibrationText(metadata)}${rows.some((row) => row.includes(NONE)) ? noSpread(options) : ''}`;
}

/** Stands where there is no number. */
const NONE = '-';

function noSpread({cv}: ProfileOptions): string {
  return cv === 'tasks'
    ? '\nno CV: one task differs from no other; give more sources, set profile.task, or set profile.cv to samples'
    : '\nno CV: one sample differs from no other; raise profile.samplesPerTask';
}

/** Median CV of a layer's neurons and the share of specialised ones; dashes where neither can be had. */
function spreadOf(layer: LayerProfile, {cv}: ProfileOptions): string[] {
  if (cvRows(layer, cv) < 2) return [NONE, NONE];
  const cv_F = neuronCv(layer, cv);
  const middle = median(cv_F);
  const share = specialisedShare(cv_F, PAPER_RULE.cvThreshold);
  return [Number.isFinite(middle) ? middle.toFixed(2) : 'dead', `${(100 * share).toFixed(0)}%`];
}

/** Names of tasks that are listed before it is enough. */
const MOST_NAMED = 12;

/** `2 tasks (prose, code), each 5 samples of 128 tokens`. */
export function calibrationText({tasks, options}: Pick<ProfileMetadata, 'tasks' | 'options'>): string {
  const {samplesPerTask, tokensPerSample, task} = options;
  const named = tasks.slice(0, MOST_NAMED).join(', ');
  const more = tasks.length > MOST_NAMED ? ` and ${tasks.length - MOST_NAMED} more` : '';
  const count = tasks.length === 1 ? '1 task' : `${tasks.length} tasks`;
  const by = task === 'source' ? '' : ` by field ${task.field}`;
  return `${count}${by} (${named}${more}), each ${samplesPerTask} samples of ${tokensPerSample} tokens`;
}

/** The middle one of sorted values; the lower of two. */
function median(values: Float64Array): number {
  return values.toSorted()[Math.floor((values.length - 1) / 2)] ?? Number.NaN;
}
