// A llama of real width, made by lot in a moment: every layer takes its numbers from the same buffer.
import {narrow} from '../../src/format/dtype.js';
import {writeModelFolder} from '../../src/format/model-folder.js';
import {type Architecture, PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {architectureToConfig, withDtype} from '../../src/model/config.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {diskTensors} from '../../src/model/names.js';
import {leavesOf, parameterSpecs} from '../../src/model/parameters.js';
import {createRng} from '../../src/util/rng.js';
import {numElements} from '../../src/util/shape.js';

export const WIDTH = 1024;
export const FFN_WIDTH = 4096;
export const VOCAB = 64;

/** Calibration text that is large enough to fit something on and small enough to go through 32 layers at once. */
export const SAMPLES = 8;
export const SEQUENCE_LENGTH = 16;
export const TOKENS = SAMPLES * SEQUENCE_LENGTH;

/** Bytes of the weights of one layer as they are computed with, float32. */
export const LAYER_BYTES = 4 * (4 * WIDTH ** 2 + 3 * WIDTH * FFN_WIDTH);

/** Writes the model in bfloat16. */
export async function writeWideModel(path: string, numLayers: number): Promise<void> {
  const architecture = wideArchitecture(numLayers);
  const {names} = FAMILIES[architecture.family];
  const tensors = leavesOf(parameterSpecs(architecture)).flatMap((spec) => diskTensors(spec, names));
  const shapes = new Map(tensors.map(({name, shape}) => [name, shape]));
  const rng = createRng(1, 'weights');
  const numbers = narrow(
    new Float32Array(WIDTH * FFN_WIDTH).map(() => 0.04 * rng.uniform() - 0.02),
    'BF16',
  );
  await writeModelFolder(path, {
    config: withDtype(architectureToConfig(architecture), 'BF16'),
    entries: tensors.map(({name, shape}) => ({name, shape, dtype: 'BF16'})),
    read: async (name) => numbers.subarray(0, 2 * numElements(shapes.get(name) ?? [])),
  });
}

function wideArchitecture(numLayers: number): Architecture {
  return {
    ...PLAIN,
    family: 'llama',
    vocab: VOCAB,
    width: WIDTH,
    heads: 16,
    kvHeads: 16,
    headDim: WIDTH / 16,
    contextLength: 64,
    normEps: 1e-5,
    ropeTheta: 10_000,
    tied: true,
    ffn: Array.from({length: numLayers}, () => ({kind: 'dense', width: FFN_WIDTH})),
    routing: SOFTMAX_ROUTING,
  };
}
