// A profile of the tiny llama: numbers by lot, since nothing here depends on where they come from.
import {openDense} from '../../src/downcycle/convert-source.js';
import type {Profile} from '../../src/downcycle/profile-file.js';
import {createRng} from '../../src/util/rng.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';

const NUM_SAMPLES = 6;

export async function tinyProfile(model = TINY_LLAMA): Promise<Profile> {
  const {folder, architecture, numNeurons, fingerprint} = await openDense(model);
  await folder.close();
  const rng = createRng(3, 'profile');
  const taskOfSample_J = [0, 0, 1, 1, 2, 2];
  const layers = architecture.ffn.map(() => ({
    gateMean_JF: Float32Array.from({length: NUM_SAMPLES * numNeurons}, () => rng.normal()),
    taskOfSample_J,
    numNeurons,
  }));
  return {
    layers,
    metadata: {
      tasks: ['prose', 'code', 'verse'],
      tokenHash: 'a'.repeat(64),
      options: {samplesPerTask: 2, tokensPerSample: 16, task: 'source', cv: 'tasks'},
      model: {fingerprint, layers: layers.length, ffnWidth: numNeurons},
    },
  };
}
