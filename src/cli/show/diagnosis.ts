import type {Finding} from '../../engine/doctor.js';
import type {Ui} from '../ui.js';

const MARKS = {good: 'ok', warning: 'note', bad: 'lacks'} as const;
const PAINTS = {good: 'green', warning: 'yellow', bad: 'red'} as const;

/** A diagnosis, a finding a line, with what to type below those that need it. */
export function diagnosisText(findings: readonly Finding[], paint: Ui['paint']): string {
  return findings
    .map(({topic, state, text, todo}) => {
      const line = `${paint(PAINTS[state], MARKS[state].padEnd(5))}  ${topic.padEnd(7)}  ${text}`;
      return todo === null ? line : `${line}\n${' '.repeat(16)}to do: ${todo}`;
    })
    .join('\n');
}
