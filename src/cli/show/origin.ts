import {changedOptions} from '../../downcycle/changed-options.js';
import {differenceOf} from '../../downcycle/difference.js';
import {unreachedTexts} from '../../downcycle/inner/plan.js';
import {NEURONS_FILE, type NeuronCount} from '../../downcycle/neuron-maps.js';
import type {Proof, Provenance} from '../../downcycle/provenance.js';
import type {ModelInspection} from '../../experiment/inspect.js';
import {innerText} from './inner.js';
import {layerText} from './layers.js';
import {type Line, lines} from './lines.js';
import {calibrationText} from './profile.js';
import {clusterText, keptText} from './pruned.js';

type Split = Extract<Provenance, {kind: 'split'}>;
type Pruned = Extract<Provenance, {kind: 'prune'}>;
type Inner = Extract<Provenance, {kind: 'inner-split'}>;

/** Width that everything here keeps to, paths aside. */
const COLUMNS = 80;

/** Where a model came from and, if it was cut out of a dense one, how each layer was; nothing if it is not recorded. */
export function originText({provenance, neurons, kept, isTrained}: ModelInspection): string[] {
  if (!provenance) return [];
  const trained: Line[] = isTrained ? [['trained', 'since it was made; what follows tells how it started']] : [];
  const about = (more: readonly Line[]): string => lines([...trained, ...originLines(provenance), ...more], COLUMNS);
  switch (provenance.kind) {
    case 'split':
      return [about(mapLines(provenance, neurons)), layerText(provenance.layers, neurons, COLUMNS)];
    case 'prune':
      return [about(keptLines(provenance, kept)), clusterText(provenance), ...(kept ? [keptText(kept)] : [])];
    case 'inner-split':
      return [about(innerLines(provenance)), innerText(provenance.layers)];
    default:
      return [about([])];
  }
}

function innerLines({layers, neuronMapHash}: Inner): Line[] {
  return [
    ['neuron map', `${NEURONS_FILE}, hash of the map ${short(neuronMapHash)} as recorded`],
    ...unreachedTexts(layers).map((text): Line => ['not reached', text]),
  ];
}

function originLines(provenance: Provenance): Line[] {
  const {versions, seed} = provenance;
  return [
    ['origin', sourceText(provenance)],
    ...(provenance.kind === 'scratch' ? [] : [['method', methodText(provenance.method)] as const]),
    ['seed', String(seed)],
    ...('calibration' in provenance ? [['calibration', calibratedOn(provenance)] as const] : []),
    ['proof', proofText(provenance)],
    ['made by', `downcycle ${versions.downcycle} on Node ${versions.node}`],
  ];
}

function sourceText(provenance: Provenance): string {
  if (provenance.kind === 'scratch') return 'made from scratch, weights drawn at random';
  const {path, revision, fingerprint, gguf} = provenance.source;
  const verb = {
    split: 'cut out of',
    'inner-split': 'cut inside the experts of',
    upcycle: 'copied from',
    prune: 'pruned copies of',
  }[provenance.kind];
  const packed = gguf
    ? ` (GGUF: ${Object.entries(gguf)
        .map(([type, count]) => `${count} ${type}`)
        .join(', ')})`
    : '';
  return `${verb} ${path}${packed}${revision === null ? '' : ` at ${revision}`}, fingerprint ${short(fingerprint)}`;
}

function methodText(options: Parameters<typeof changedOptions>[0]): string {
  const settings = Object.entries(changedOptions(options)).map(([name, value]) => `${name} ${String(value)}`);
  return [options.method, ...settings].join(', ');
}

function calibratedOn({calibration}: Split | Pruned | Inner): string {
  if (!calibration) return 'none recorded: the cut looks at no activations';
  return `${calibrationText(calibration)}, SHA-256 ${short(calibration.tokenHash)}`;
}

function proofText(provenance: Provenance): string {
  if (provenance.kind === 'scratch') return 'none: there is no dense model that it could equal';
  const difference = differenceOf(provenance.method);
  if (difference !== null) return `none: not equal to its parent by design: ${difference}`;
  return provenance.equivalence ? provedText(provenance.equivalence) : 'not proved yet';
}

function provedText({maxLogitDifference, limit, passed, tokens}: Proof): string {
  const [difference, allowed] = [maxLogitDifference, limit].map((value) => value.toExponential(1));
  const text = `all experts active: largest logit difference ${difference} (allowed ${allowed}) on ${tokens} tokens`;
  return passed ? text : `failed; ${text}`;
}

function mapLines({neuronMapHash, padding}: Split, neurons: ModelInspection['neurons']): Line[] {
  if (!neurons) return [['neuron map', `none: ${NEURONS_FILE} is not in the folder; older versions wrote none`]];
  return [
    ['neurons', neuronsText(neurons)],
    ...(padding > 0 ? [['padding', `${padding} a layer: neurons of zeros, appended with the last ids`] as const] : []),
    ['neuron map', `${NEURONS_FILE}, hash of the map ${short(neuronMapHash)} as recorded`],
  ];
}

function keptLines({numNeurons, expertWidth, neuronMapHash}: Pruned, kept: ModelInspection['kept']): Line[] {
  if (!kept) return [['neuron lists', `none: ${NEURONS_FILE} is not in the folder`]];
  return [
    ['neurons', `each expert keeps ${expertWidth} of ${numNeurons}; experts may overlap`],
    ['neuron lists', `${NEURONS_FILE}, hash of the map ${short(neuronMapHash)} as recorded`],
  ];
}

/** Where neurons went: in each layer if that is the same in all, else in all of them. */
function neuronsText(layers: readonly NeuronCount[]): string {
  const [first = '', ...others] = new Set(layers.map((count) => countText([count])));
  if (others.length > 0) return `${countText(layers)}; all ${layers.length} layers together`;
  return layers.length === 1 ? first : `${first}; the same in all ${layers.length} layers`;
}

/** `288 shared, 480 in 20 experts of 24`: all experts of a split are equally wide. */
function countText(layers: readonly NeuronCount[]): string {
  const experts = layers.flatMap((count) => count.experts);
  const parts = [
    [sum(layers.map(({shared}) => shared)), experts.length > 0 ? 'shared' : 'kept'],
    [sum(experts), `in ${experts.length} experts of ${experts[0]}`],
    [sum(layers.map(({leftOut}) => leftOut)), 'left out'],
  ] as const;
  return parts.flatMap(([count, where]) => (count > 0 ? [`${count} ${where}`] : [])).join(', ');
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}

function short(hash: string): string {
  return hash.slice(0, 12);
}
