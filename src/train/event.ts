import type {EngineInfo} from '../engine/start.js';
import type {TrainablePart} from './trainable.js';

/** What happens during a run, for whoever shows it. */
export type TrainEvent =
  | {readonly kind: 'note'; readonly text: string}
  | {readonly kind: 'pack'; readonly source: string; readonly documents: number; readonly tokens: number}
  | {
      readonly kind: 'start';
      readonly arm: string;
      readonly engine: EngineInfo;
      readonly step: number;
      readonly steps: number;
      readonly parts: readonly TrainablePart[];
    }
  | {
      readonly kind: 'step';
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
      readonly tokensPerSecond: number;
      /** Seconds left at the mean speed of this session; null before there is one. */
      readonly eta: number | null;
    }
  | {readonly kind: 'eval'; readonly step: number; readonly loss: number}
  | {readonly kind: 'checkpoint'; readonly step: number; readonly path: string};
