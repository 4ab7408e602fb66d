import {PAPER_RULE, specialisedShare} from '../../downcycle/allocation.js';
import type {Profile, ProfileMetadata} from '../../downcycle/profile-file.js';
import {neuronCv} from '../../downcycle/statistics.js';
import {textTable} from '../../report/table.js';

/** How universal the neurons of each layer are, a layer a line. */
export function profileText({layers, metadata}: Profile): string {
  const {options} = metadata;
  const columns = ['layer', 'neurons', 'median\nCV', `CV over\n${PAPER_RULE.cvThreshold}`].map((title) => ({
    title,
    align: 'right' as const,
  }));
  const rows = layers.map((layer, l) => {
    const cv_F = neuronCv(layer, options.cv);
    const share = specialisedShare(cv_F, PAPER_RULE.cvThreshold);
    return [String(l), String(layer.numNeurons), median(cv_F).toFixed(2), `${(100 * share).toFixed(0)}%`];
  });
  return `${textTable(columns, rows)}\n\n${calibrationText(metadata)}`;
}

/** `2 tasks (prose, code), each 5 samples of 128 tokens`. */
export function calibrationText({tasks, options}: Pick<ProfileMetadata, 'tasks' | 'options'>): string {
  const samples = `${options.samplesPerTask} samples of ${options.tokensPerSample} tokens`;
  return `${tasks.length === 1 ? '1 task' : `${tasks.length} tasks`} (${tasks.join(', ')}), each ${samples}`;
}

/** The middle one of sorted values; the lower of two. */
function median(values: Float64Array): number {
  return values.toSorted()[Math.floor((values.length - 1) / 2)] ?? Number.NaN;
}
