import type {Exported} from '../../export/export.js';
import type {ExportPlan, Refusal} from '../../export/plan.js';
import {formatCount} from '../../report/number.js';
import {formatPercent} from '../../util/percent.js';
import {lines} from './lines.js';

/** Letters of a line; longer reasons go on in the next. */
const COLUMNS = 100;

/** What a mixture can be exported to, and why not to others. */
export function plansText(plans: readonly (ExportPlan | Refusal)[]): string {
  const width = Math.max(...plans.map(({target}) => target.length));
  return lines(
    plans.map((plan) => {
      const [kind, why] = verdict(plan);
      return [`${plan.target.padEnd(width)}  ${kind}`, why];
    }),
    COLUMNS,
  );
}

function verdict(plan: ExportPlan | Refusal): [kind: string, why: string] {
  if (plan.kind === 'refusal') return ['impossible', plan.remedy === null ? plan.why : `${plan.why}. ${plan.remedy}`];
  if (plan.approximation !== null) return [plan.fidelity, `it ${plan.approximation}`];
  return [
    'exact',
    plan.tricks.length === 0 ? 'it is of that form' : `it ${plan.tricks.map(({says}) => says).join('; ')}`,
  ];
}

/** What was exported, and how far it is from its source. */
export function exportedText({
  target,
  dtype,
  kind,
  approximation,
  fidelity,
  parameters,
  sourceParameters,
  out,
}: Exported): string {
  const {total, active} = parameters;
  const grown =
    total === sourceParameters.total
      ? ''
      : ` (source: ${formatCount(sourceParameters.total)}, ${formatCount(sourceParameters.active)})`;
  return `${lines([
    ['target', `${target}, stored as ${dtype}`],
    ['size', `${formatCount(total)} parameters, ${formatCount(active)} active${grown}`],
    ['fidelity', approximation === null ? kind : `${kind}: it ${approximation}`],
    [
      'measured',
      `largest logit difference ${small(fidelity.maxLogitDifference)} of ${fidelity.largestLogit.toPrecision(3)}, mean ${small(fidelity.meanLogitDifference)}, KL ${small(fidelity.kl)} nats a token, same likeliest token at ${formatPercent(fidelity.sameToken)} of ${fidelity.tokens} positions (${fidelity.text})`,
    ],
  ])}\n${out}`;
}

function small(value: number): string {
  return value === 0 ? '0' : value.toExponential(1);
}
