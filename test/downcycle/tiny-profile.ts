// A profile of the tiny llama: numbers by lot, since nothing here depends on where they come from.
import {openDense} from '../../src/downcycle/model-source.js';
import type {Profile} from '../../src/downcycle/profile-file.js';
import {createRng} from '../../src/util/rng.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';

const NUM_SAMPLES = 6;
const NUM_MARKERS = 4;

export async function tinyProfile(model = TINY_LLAMA): Promise<Profile> {
  const {folder, architecture, numNeurons, fingerprint} = await openDense(model);
  await folder.close();
  const rng = createRng(3, 'profile');
  const taskOfSample_J = [0, 0, 1, 1, 2, 2];
  const normal = (size: number): Float32Array => Float32Array.from({length: size}, () => rng.normal());
  const positive = (size: number): Float32Array => normal(size).map(Math.abs);
  const layers = architecture.ffn.map(() => ({
    numNeurons,
    taskOfSample_J,
    gateMean_JF: normal(NUM_SAMPLES * numNeurons),
    gateMagnitude_F: positive(numNeurons),
    hMean_JF: normal(NUM_SAMPLES * numNeurons),
    hSquare_JF: positive(NUM_SAMPLES * numNeurons).map((value) => value + 10),
    hMagnitude_F: positive(numNeurons),
    marker_NM: Int32Array.from({length: NUM_SAMPLES * 16 * NUM_MARKERS}, () => rng.int(numNeurons)),
    numMarkers: NUM_MARKERS,
    downNorm_F: positive(numNeurons),
    predicted: null,
    gradients: null,
  }));
  return {
    layers,
    metadata: {
      tasks: ['prose', 'code', 'verse'],
      tokenHash: 'a'.repeat(64),
      options: {
        samplesPerTask: 2,
        tokensPerSample: 16,
        task: 'source',
        cv: 'tasks',
        markers: {count: NUM_MARKERS, of: 'plain'},
        predictors: false,
        gradients: false,
      },
      model: {fingerprint, layers: layers.length, ffnWidth: numNeurons},
    },
  };
}
