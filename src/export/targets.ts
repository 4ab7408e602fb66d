import {type Architecture, countParameters, type MixtureFamily} from '../model/architecture.js';
import {architectureAfter, type ExportPlan, planFor, type Refusal, type Storage, type Target} from './plan.js';
import {DBRX_TARGET} from './target/dbrx.js';
import {DEEPSEEK_V3} from './target/deepseek-v3.js';
import {FLEX_OLMO_TARGET} from './target/flex-olmo.js';
import {GLM4_MOE_TARGET} from './target/glm4-moe.js';
import {GRANITEMOESHARED_TARGET} from './target/granitemoeshared.js';
import {MIXTRAL_TARGET} from './target/mixtral.js';
import {OLMOE_TARGET} from './target/olmoe.js';
import {QWEN2_MOE_TARGET} from './target/qwen2-moe.js';
import {QWEN3_MOE_TARGET} from './target/qwen3-moe.js';

/** Every family that can be exported to. */
const TARGETS: Readonly<Record<MixtureFamily, Target>> = {
  mixtral: MIXTRAL_TARGET,
  qwen2_moe: QWEN2_MOE_TARGET,
  qwen3_moe: QWEN3_MOE_TARGET,
  olmoe: OLMOE_TARGET,
  flex_olmo: FLEX_OLMO_TARGET,
  dbrx: DBRX_TARGET,
  granitemoeshared: GRANITEMOESHARED_TARGET,
  glm4_moe: GLM4_MOE_TARGET,
};

/** Exports beyond the smallest by more than this hold something several times. */
const ABOUT_AS_LARGE = 1.05;

/**
 * How a mixture becomes one of each family, and why it cannot be one of the others: exact ones first, among them those of about
 * the fewest parameters, among them its own family.
 */
export function planAll(architecture: Architecture, storage: Storage): (ExportPlan | Refusal)[] {
  const all = Object.values(TARGETS).map((target) => planFor(target, architecture, storage));
  const plans = all.filter((plan) => plan.kind === 'plan');
  const refusals = all.filter((plan) => plan.kind === 'refusal').map((refusal) => withOthers(refusal, plans));
  const sizeOf = ({tricks}: ExportPlan): number => countParameters(architectureAfter(architecture, tricks)).total;
  const smallest = Math.min(...plans.map(sizeOf));
  const rank = (plan: ExportPlan): number =>
    4 * ['exact', 'rounded', 'approximate'].indexOf(plan.fidelity) +
    (sizeOf(plan) > ABOUT_AS_LARGE * smallest ? 2 : 0) +
    (plan.target === architecture.family ? 0 : 1);
  return [...plans.toSorted((a, b) => rank(a) - rank(b)), ...refusals, DEEPSEEK_V3];
}

/** Of the families that have what another lacks, those that can hold the model are worth naming. */
function withOthers(refusal: Refusal, plans: readonly ExportPlan[]): Refusal {
  const others = refusal.instead.filter((family) => plans.some(({target}) => target === family));
  return others.length === 0 ? refusal : {...refusal, remedy: `Choose ${LIST.format(others)}.`};
}

const LIST = new Intl.ListFormat('en-GB', {type: 'disjunction'});
