import type {Conversion} from '../../downcycle/convert.js';
import {flopsPerToken} from '../../model/architecture.js';
import {formatCount} from '../../report/number.js';
import {textTable} from '../../report/table.js';

/** Training steps cost three forward passes. */
const PASSES = 3;

/** A plan layer by layer, and what it comes to. */
export function planText(plan: Conversion, sequenceLength: number): string {
  const columns = ['layer', 'shared', 'experts', 'wide', 'active', 'active\nneurons', 'r', 'alpha'].map((title) => ({
    title,
    align: 'right' as const,
  }));
  const rows = plan.provenance.layers.map((layer, l) => [
    String(l),
    String(layer.sharedWidth),
    String(layer.experts),
    String(layer.expertWidth),
    String(layer.topK),
    String(layer.sharedWidth + layer.topK * layer.expertWidth),
    layer.specialisedShare === null ? '-' : layer.specialisedShare.toFixed(2),
    layer.sharedRatio.toFixed(2),
  ]);
  return `${textTable(columns, rows)}\n\n${totals(plan, sequenceLength).join('\n')}`;
}

function totals({dense, moe, architecture, parent, bytes, provenance}: Conversion, sequenceLength: number): string[] {
  const {padding} = provenance;
  const [before, after] = [parent, architecture].map((one) => flopsPerToken(one, sequenceLength) / PASSES);
  const saved = percent(1 - (after as number) / (before as number));
  return [
    `parameters  ${formatCount(moe.total)} in all, ${formatCount(moe.active)} active a token (dense: ${formatCount(dense.total)})`,
    `compute     ${formatCount(after as number)} FLOPs a token forwards, ${saved} less than dense`,
    ...(padding > 0 ? [`padding     ${padding} a layer: neurons of zeros, appended`] : []),
    `checkpoint  ${(bytes / 1e6).toFixed(1)} MB`,
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}
