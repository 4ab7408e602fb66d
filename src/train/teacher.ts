import {loadModel, type Model} from '../model/model.js';
import {readArchitecture} from '../model/read-architecture.js';
import {loadTokenizer, type Tokenizer} from '../tokenizer/tokenizer.js';
import {ModelError} from '../util/errors.js';
import type {TrainOptions} from './options.js';

/**
 * The model that a run learns from besides its text; null if it names none.
 *
 * @throws ModelError if it has other words or another tokenizer: its words would mean something else.
 */
export async function openTeacher(
  distill: TrainOptions['distill'],
  {architecture, path}: Model,
  {fingerprint}: Tokenizer,
): Promise<Model | null> {
  if (!distill) return null;
  const {from} = distill;
  const {vocab} = await readArchitecture(from);
  const isSame = vocab === architecture.vocab && (await loadTokenizer(from)).fingerprint === fingerprint;
  if (isSame) return loadModel(from);
  const why = vocab === architecture.vocab ? 'another tokenizer' : `${vocab} words instead of ${architecture.vocab}`;
  throw new ModelError(`train.distill.from: ${from} has ${why} and cannot teach ${path}.`, {
    hint: 'Name a model of the same tokenizer, such as the dense parent.',
  });
}
