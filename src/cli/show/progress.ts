import type {StartingModel} from '../../experiment/arm.js';
import type {CompareEvent} from '../../experiment/compare.js';
import {formatCount, formatLoss} from '../../report/number.js';
import {type TableColumn, textTable} from '../../report/table.js';
import {type StatusLine, trainStatus} from '../../report/terminal.js';
import type {TrainEvent} from '../../train/event.js';
import type {TrainablePart} from '../../train/trainable.js';
import {showDownload} from './download.js';

/** Shows a training run on a status line. */
function showTrain(status: StatusLine, label: string): (event: TrainEvent) => void {
  return (event) => {
    switch (event.kind) {
      case 'note':
        return status.print(event.text);
      case 'pack':
        return status.update(
          `packing ${event.source}  ${event.documents} documents  ${formatCount(event.tokens)} tokens`,
        );
      case 'start':
        if (event.step > 0) status.print(`${label}  goes on after step ${event.step}`);
        return isPartial(event.parts) ? status.print(partsTable(event.parts)) : undefined;
      case 'step': {
        const {step, steps: numSteps, loss, tokensPerSecond, eta} = event;
        return status.update(
          trainStatus({label, step, numSteps, loss, tokensPerSecond, secondsLeft: eta ?? Number.NaN}),
        );
      }
      case 'eval':
        return status.print(`${label}  step ${event.step}  held-out loss ${formatLoss(event.loss)}`);
      case 'checkpoint':
        return undefined; // the log has it
    }
  };
}

/** Whether a part is frozen, or has low-rank terms. */
function isPartial(parts: readonly TrainablePart[]): boolean {
  return parts.some(({parameters, trained, moved, lowRank}) => trained + moved < parameters || lowRank > 0);
}

const PART_COLUMNS: readonly TableColumn[] = [
  {title: 'part', align: 'left'},
  {title: 'parameters', align: 'right'},
  {title: 'trained', align: 'right'},
  {title: 'moved', align: 'right'},
  {title: 'low-rank terms', align: 'right'},
];

/** What trains and what is frozen; biases that balance experts move without a gradient. */
function partsTable(parts: readonly TrainablePart[]): string {
  const shown = (count: number): string => (count === 0 ? '-' : formatCount(count));
  const rows = parts.map(({part, parameters, trained, moved, lowRank}) => [
    part,
    formatCount(parameters),
    trained === 0 ? 'frozen' : formatCount(trained),
    shown(moved),
    shown(lowRank),
  ]);
  return textTable(PART_COLUMNS, rows);
}

/** Shows a comparison on a status line. */
export function showCompare(status: StatusLine): (event: CompareEvent) => void {
  const showBytes = showDownload(status);
  return (event) => {
    switch (event.kind) {
      case 'stage':
        return status.print(event.text);
      case 'warning':
        return status.print(`warning: ${event.text}`);
      case 'profile':
        return status.update(`${event.what}  ${event.done} of ${event.total}`);
      case 'download':
        return showBytes(event.progress);
      case 'arm':
        return status.print(startText(event));
      case 'train':
        return showTrain(status, event.arm)(event.event);
    }
  };
}

/** A starting model in one line: its size, and how well it equals its parent or why it does not; then a line a note. */
export function startText({notes, ...made}: StartingModel): string {
  return [sizeText(made), ...notes].join('\n');
}

function sizeText({arm, parameters, proof}: Omit<StartingModel, 'notes'>): string {
  const size = `${arm}  ${formatCount(parameters.total)} parameters, ${formatCount(parameters.active)} active`;
  if (typeof proof === 'string') return `${size}, ${proof}`;
  const [difference, limit] = [proof.maxLogitDifference, proof.limit].map((value) => value.toExponential(1));
  return `${size}, with all experts equal to its parent: largest logit difference ${difference} (allowed ${limit}) on ${proof.tokens} tokens`;
}
