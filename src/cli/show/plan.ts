import type {Conversion} from '../../downcycle/convert.js';
import type {DiveConversion} from '../../downcycle/dive.js';
import {unreachedTexts} from '../../downcycle/inner/plan.js';
import type {ExpertsConversion} from '../../downcycle/split-experts.js';
import {type Architecture, flopsPerToken} from '../../model/architecture.js';
import {formatCount} from '../../report/number.js';
import {textTable} from '../../report/table.js';
import {innerText} from './inner.js';
import {layoutText} from './layout.js';
import {clusterText, keptText} from './pruned.js';

type Planned = Conversion | DiveConversion | ExpertsConversion;

/** Training steps cost three forward passes. */
const PASSES = 3;

/** A plan layer by layer, and what it comes to. */
export function planText(plan: Planned, sequenceLength: number): string {
  const {warnings} = plan;
  const parts = [
    ...cutTexts(plan),
    totals(plan, sequenceLength).join('\n'),
    warnings.map((text) => `warning: ${text}`).join('\n'),
  ];
  return parts.filter((part) => part !== '').join('\n\n');
}

function cutTexts(plan: Planned): string[] {
  if ('kept' in plan) return prunedText(plan);
  if (!isInner(plan)) return [splitText(plan)];
  const {layers} = plan.provenance;
  return [innerText(layers), ...unreachedTexts(layers)];
}

function isInner(plan: Planned): plan is ExpertsConversion {
  return plan.provenance.kind === 'inner-split';
}

/** How the tasks were clustered, and what the experts keep of each layer. */
function prunedText({provenance, kept, architecture}: DiveConversion): string[] {
  const [layout] = architecture.ffn.map((one) => layoutText(one, architecture.routing));
  return [clusterText(provenance), `every layer: ${layout ?? ''}`, keptText(kept)];
}

function splitText(plan: Conversion): string {
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
  return textTable(columns, rows);
}

function totals({dense, moe, architecture, parent, bytes, provenance}: Planned, sequenceLength: number): string[] {
  const before = provenance.kind === 'inner-split' ? 'the mixture' : 'dense';
  const padding = 'padding' in provenance ? provenance.padding : 0;
  const flops = (of: Architecture): number => flopsPerToken(of, sequenceLength) / PASSES;
  const saved = 1 - flops(architecture) / flops(parent);
  const against = `${percent(Math.abs(saved))} ${saved < 0 ? 'more' : 'less'} than ${before}`;
  return [
    `parameters  ${formatCount(moe.total)} in all, ${formatCount(moe.active)} active a token (${before}: ${formatCount(dense.total)})`,
    `compute     ${formatCount(flops(architecture))} FLOPs a token forwards, ${against}`,
    ...(padding > 0 ? [`padding     ${padding} a layer: neurons of zeros, appended`] : []),
    `checkpoint  ${(bytes / 1e6).toFixed(1)} MB`,
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}
