import {join} from 'node:path';
import {describe, expect} from 'vitest';
import {type Routing, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {onEveryEngine} from '../support/engines.js';
import type {Host} from '../support/host.js';
import {GOLDENS, hasGoldens, needsGoldens, readJson, readTensors} from './goldens.js';
import {forward, readHostModel} from './run-model.js';
import {splitModel} from './split.js';

interface Golden {
  readonly partitions: Readonly<
    Record<string, {readonly shared_ids: number[]; readonly expert_ids: number[][]; readonly active_experts: number}>
  >;
}

/** Chosen experts count whole (ExpertWeaver, equation 12). */
const WHOLE: Routing = {...SOFTMAX_ROUTING, weight: 'one'};

const CASES = [
  {name: 'tiny_llama', folder: 'tiny_llama', partitions: ['even']},
  {name: 'stories260k', folder: 'stories260k/model', partitions: ['even', 'padded']},
];

for (const {name, folder, partitions} of CASES) {
  describe.skipIf(!hasGoldens)(`${name}${needsGoldens}`, () => {
    const read = () => ({
      golden: readJson<Golden>(join(GOLDENS, 'expertweaver', `${name}.json`)),
      tensors: readTensors(join(GOLDENS, 'expertweaver', `${name}.safetensors`)),
      dense: readHostModel(join(GOLDENS, folder)),
    });

    onEveryEngine('has the logits of PyTorch', async (engine) => {
      const {tensors, dense} = read();
      const {logits} = await forward(engine, await dense, oneRow(tensors.sequence_ids!));
      expect(logits.values).toBeAllClose(tensors.dense_logits!.values, {rtol: 0, atol: 1e-4});
    });

    for (const partition of partitions) {
      const kinds = [
        {how: 'experts counted whole', routing: WHOLE, key: `${partition}.logits`},
        {how: 'experts weighted by softmax', routing: SOFTMAX_ROUTING, key: `${partition}.logits_softmax`},
      ];
      for (const {how, routing, key} of kinds) {
        onEveryEngine(`has the logits of PyTorch once cut into ${partition} experts, ${how}`, async (engine) => {
          const {golden, tensors, dense} = read();
          const {shared_ids: shared, expert_ids: experts, active_experts: topK} = golden.partitions[partition]!;
          const model = splitModel(await dense, {shared, experts, topK}, routing);
          const {logits} = await forward(engine, model, oneRow(tensors.sequence_ids!));
          expect(logits.values).toBeAllClose(tensors[key]!.values, {rtol: 0, atol: 1e-4});
        });
      }
    }
  });
}

function oneRow({dtype, values}: Host): Host {
  return {shape: [1, values.length], dtype, values};
}
