import type {InnerLayerRecord} from '../../downcycle/provenance.js';
import {type TableColumn, textTable} from '../../report/table.js';

type Layer = InnerLayerRecord | null;

/** How the experts of each layer were cut once more. */
export function innerText(layers: readonly Layer[]): string {
  const right = (title: string): TableColumn => ({title, align: 'right'});
  const rows = layers.map((layer, l) => [String(l), ...(layer ? cells(layer) : ['dense', '', '', ''])]);
  return textTable(
    [right('layer'), right('experts'), right('neurons\nof each'), right('cut of each'), right('active\nneurons')],
    rows,
  );
}

function cells({experts, topK, numNeurons, sharedWidth, inner}: InnerLayerRecord): string[] {
  return [
    `${topK} of ${experts}`,
    String(numNeurons),
    `${sharedWidth} shared + ${inner.topK} of ${inner.experts} x ${inner.expertWidth}`,
    String(topK * (sharedWidth + inner.topK * inner.expertWidth)),
  ];
}
