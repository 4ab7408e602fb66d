import {type Architecture, type MoeLayout, moeLayouts} from '../model/architecture.js';
import {Inexpressible} from './plan.js';

/** The numbers of experts that all layers have. @throws Inexpressible if layers differ in what padding cannot change. */
export function uniformLayout(architecture: Architecture): MoeLayout {
  const layouts = moeLayouts(architecture);
  const [first] = layouts;
  if (!first) throw new Error('a model without experts is no mixture');
  for (const key of ['experts', 'topK'] as const) {
    const counts = [...new Set(layouts.map((layout) => layout[key]))];
    if (counts.length === 1) continue;
    const what = key === 'topK' ? 'chosen experts' : 'experts';
    const range = `${Math.min(...counts)} to ${Math.max(...counts)} ${what}`;
    throw new Inexpressible(
      `its layers have ${range}, and the family has one number for all`,
      'Convert with --allocate uniform.',
    );
  }
  return first;
}

/** @throws Inexpressible if a layer has no experts. */
export function refuseDense({ffn}: Architecture): void {
  const layer = ffn.findIndex(({kind}) => kind === 'dense');
  if (layer >= 0) throw new Inexpressible(`layer ${layer} has no experts, and the family has them in all`);
}

/** @throws Inexpressible if routers have biases that move the choice. */
export function refuseSelectionBias(architecture: Architecture): void {
  if (!moeLayouts(architecture).some(({selectionBias}) => selectionBias)) return;
  throw new Inexpressible(
    'its routers have selection biases, and the family adds none to such scores',
    'glm4_moe has them, for sigmoid scores, and for weights of one where biases are added to logits.',
  );
}

/** @throws Inexpressible if the shared expert has a gate. */
export function refuseSharedGate(architecture: Architecture): void {
  if (!moeLayouts(architecture).some(({sharedGate}) => sharedGate)) return;
  throw new Inexpressible('its shared expert has a gate, and the family has none', ['qwen2_moe']);
}
