// The tensors of a layer whose experts are cut once more.
import {diskTensors} from '../../model/names.js';
import {type FfnTree, type ParameterSpec, parameterSpecs} from '../../model/parameters.js';
import {type GluMatrix, gatherNeurons} from '../convert-gather.js';
import {
  copied,
  keepLast,
  type MadeTensor,
  readMatrix,
  type StoredMatrix,
  storedTensor,
  valuesOf,
} from '../convert-source.js';
import type {ModelSource} from '../model-source.js';
import {representativeRows} from '../router-rows.js';
import type {ExpertPlan} from './plan.js';

type Mixture = Extract<FfnTree<ParameterSpec>, {kind: 'moe'}>;

const MATRICES: readonly GluMatrix[] = ['gate', 'up', 'down'];

/**
 * Each expert keeps the rows of gate and up and columns of down of its shared neurons, those inside it have the others;
 * their routers are the rows of representative neurons, float32. All else, and layers without experts, as it stands.
 */
export function cutExperts(
  source: ModelSource,
  layer: number,
  specs: FfnTree<ParameterSpec>,
  plans: readonly ExpertPlan[],
): MadeTensor[] {
  if (specs.kind === 'dense') return MATRICES.flatMap((which) => copied(source, specs[which]));
  const before = parameterSpecs(source.architecture).layers[layer]?.ffn;
  if (before?.kind !== 'moe') throw new Error(`layer ${layer} has no experts`);
  const {router, routerUp, routerOut, bias, scale, shared, sharedGate, expertBias} = specs;
  const kept = [
    router,
    routerUp,
    routerOut,
    bias,
    scale,
    ...(shared ? MATRICES.map((which) => shared[which]) : []),
    sharedGate,
    expertBias,
  ];
  return [
    ...kept.flatMap((spec) => copied(source, spec)),
    ...MATRICES.flatMap((which) => cutMatrices(source, which, before, specs, plans)),
  ];
}

/** Everything that is made of one kind of matrix; each of them is read once, for what is made of it stands together. */
function cutMatrices(
  source: ModelSource,
  which: GluMatrix,
  before: Mixture,
  {experts, inner}: Mixture,
  plans: readonly ExpertPlan[],
): MadeTensor[] {
  if (!inner) throw new Error('there is nothing inside the experts');
  const {names} = source;
  const read = keepLast((name: string) => readMatrix(source, storedTensor(source, name)));
  const [own, inside] = [diskTensors(experts[which], names), diskTensors(inner.experts[which], names)];
  const rows = which === 'down' ? [] : diskTensors(which === 'gate' ? inner.router : inner.routerUp, names);
  return diskTensors(before.experts[which], names).flatMap(({name}, g) => {
    const plan = plans[g];
    if (!plan) throw new Error(`there is no plan of expert ${g}`);
    const {dtype} = storedTensor(source, name);
    const made = (
      target: {readonly name: string; readonly shape: readonly number[]} | undefined,
      make: (matrix: StoredMatrix) => Uint8Array | Float32Array,
      as: 'F32' | typeof dtype = dtype,
    ): MadeTensor[] =>
      target
        ? [{spec: {name: target.name, shape: target.shape, dtype: as}, make: async () => make(await read(name))}]
        : [];
    return [
      ...made(own[g], (matrix) => gatherNeurons(matrix, which, plan.shared)),
      ...plan.experts.flatMap((ids, i) =>
        made(inside[g * plan.experts.length + i], (matrix) => gatherNeurons(matrix, which, ids)),
      ),
      ...made(rows[g], (matrix) => representativeRows(valuesOf(matrix), matrix.columns, plan.representatives), 'F32'),
    ];
  });
}
