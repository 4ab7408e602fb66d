// What profiles, plans and fits gave when NUMBERS was last raised, on one engine.
import {describe, expect} from 'vitest';
import {type Conversion, convert, planOf} from '../../src/downcycle/convert.js';
import {openDense} from '../../src/downcycle/model-source.js';
import {NUMBERS} from '../../src/downcycle/numbers.js';
import {measureRoutedScale} from '../../src/downcycle/output-scale.js';
import {profileText} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {onEngine} from '../support/engines.js';
import {lotCalibration as calibration} from './lot-calibration.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const digits = (value: number): string => value.toPrecision(3); // machines differ in the last ones
const mean = (values: Float32Array): string =>
  digits(values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length);
const RECORDED = {
  numbers: 4,
  profile: [
    ['0.368', '0.0206'],
    ['0.271', '0.00438'],
  ],
  expertweaver: 'd7ba4b1a55fe',
  padded: '3967a65376cf',
  weave: '63f42a1fb724',
  cmoe: 'c090d55978bd',
  moefication: '6ac985e54414',
  'co-activation': 'd8c2b3b590af',
  importance: 'c4cf41cf7425',
  variance: '070b507ee5ca',
  routedScale: ['3.05', '4.31'],
  errors: [
    ['0.0221', '0.0144'],
    ['0.348', '0.266'],
  ],
};

describe('NUMBERS', () => {
  onEngine('wasm', 'is raised when what profiles, plans and fits give changes', async () => {
    const source = await openDense(TINY_LLAMA);
    const options = profileSchema.parse({predictors: true, gradients: true, markers: {count: 3}});
    const profile = await profileText(source, calibration, {profile: options, partial: scratch('partial')});
    await source.folder.close();
    const made = (method: object): Promise<Conversion> => {
      const counts = {experts: 6, shared: 2, topK: 2};
      const how = {model: TINY_LLAMA, seed: 1, profile, calibration};
      return convert({...how, method: splitOptions({...counts, ...method}), out: scratch(JSON.stringify(method))});
    };
    const hash = ({provenance}: Conversion): string => provenance.neuronMapHash.slice(0, 12);
    const weave = await made({method: 'weave'});
    const method = splitOptions({method: 'expertweaver', experts: 6, shared: 2, topK: 2, outputScale: 'match'});
    const scaled = {model: TINY_LLAMA, method, seed: 1, profile};
    const found = {
      numbers: NUMBERS,
      profile: profile.layers.map(({gateMean_JF, gradients}) => [mean(gateMean_JF), mean(gradients!.sensitivity_F)]),
      expertweaver: hash(await made({method: 'expertweaver'})),
      padded: hash(await made({method: 'expertweaver', experts: 5, pad: true})),
      weave: hash(weave),
      cmoe: hash(await made({method: 'cmoe'})),
      moefication: hash(await made({method: 'moefication'})),
      'co-activation': hash(await made({method: 'llama-moe', split: 'co-activation'})),
      importance: hash(await made({method: 'llama-moe', split: 'importance'})),
      variance: hash(await made({method: 'all-shared', keepBy: 'variance'})),
      routedScale: (await measureRoutedScale(TINY_LLAMA, await planOf(scaled), calibration, scaled)).map(digits),
      errors: weave.provenance.layers.map(({error}) => [digits(error!.before), digits(error!.after)]),
    };
    expect(found, 'Raise NUMBERS when you change these, and record them here.').toEqual(RECORDED);
  });
});
