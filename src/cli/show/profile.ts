import {PAPER_RULE, specialisedShare} from '../../downcycle/allocation.js';
import type {Profile} from '../../downcycle/profile-file.js';
import {neuronCv} from '../../downcycle/statistics.js';
import {textTable} from '../../report/table.js';

/** How universal the neurons of each layer are, a layer a line. */
export function profileText({layers, metadata}: Profile): string {
  const {tasks, options} = metadata;
  const columns = ['layer', 'neurons', 'median\nCV', `CV over\n${PAPER_RULE.cvThreshold}`].map((title) => ({
    title,
    align: 'right' as const,
  }));
  const rows = layers.map((layer, l) => {
    const cv_F = neuronCv(layer, options.cv);
    const share = specialisedShare(cv_F, PAPER_RULE.cvThreshold);
    return [String(l), String(layer.numNeurons), median(cv_F).toFixed(2), `${(100 * share).toFixed(0)}%`];
  });
  const samples = `${options.samplesPerTask} samples of ${options.tokensPerSample} tokens`;
  return `${textTable(columns, rows)}\n\n${tasks.length === 1 ? '1 task' : `${tasks.length} tasks`} (${tasks.join(', ')}), each ${samples}`;
}

/** The middle one of sorted values; the lower of two. */
function median(values: Float64Array): number {
  return values.toSorted()[Math.floor((values.length - 1) / 2)] ?? Number.NaN;
}
