import type {FloatDtype} from '../format/dtype.js';
import type {Architecture, MixtureFamily} from '../model/architecture.js';
import {type ExportPlan, planFor, type Refusal, type Target} from './plan.js';
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
  granitemoeshared: GRANITEMOESHARED_TARGET,
  glm4_moe: GLM4_MOE_TARGET,
};

/** How a mixture becomes one of each family, in the order of {@link preferred}, and why it cannot be one of the others. */
export function planAll(architecture: Architecture, dtype: FloatDtype): (ExportPlan | Refusal)[] {
  const plans = Object.values(TARGETS).map((target) => planFor(target, architecture, dtype));
  return [...plans.toSorted((a, b) => costOf(a, architecture) - costOf(b, architecture)), DEEPSEEK_V3];
}

/** Exact ones first, then rounded ones; those that hold a shared expert once before those that hold it in every routed one. */
function costOf(plan: ExportPlan | Refusal, {family}: Architecture): number {
  if (plan.kind === 'refusal') return 16;
  const isFolded = plan.tricks.some(({says}) => says.startsWith('puts the shared expert'));
  const isClose = plan.tricks.some(({fidelity}) => fidelity === 'approximate');
  const distance = plan.approximation === null ? 0 : isClose ? 8 : 4;
  return distance + (isFolded ? 2 : 0) + (plan.target === family ? 0 : 1);
}
