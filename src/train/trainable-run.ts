// What can be told of a run before its weights or its text are read.
import type {Model} from '../model/model.js';
import {readArchitecture} from '../model/read-architecture.js';
import {tokenizerFingerprint} from '../tokenizer/tokenizer.js';
import {DataError, ModelError} from '../util/errors.js';
import {refuseUnevenPool} from './balance.js';
import {selectParameters} from './finetune.js';
import {requireRoutable} from './routing/check.js';
import {withBiases} from './selection-bias.js';
import type {TrainRun} from './session.js';

/** A model folder whose weights nobody has read. */
export type ModelOutline = Pick<Model, 'path' | 'architecture'>;

/**
 * Refuses a run that its model, or its teacher, cannot be trained in.
 *
 * @throws ConfigError for a balance, a routing or a finetune that the model does not fit; DataError for rows longer than its
 * positions; ModelError for a teacher of other words or another tokenizer.
 */
export async function requireTrainable(
  {train, data}: Pick<TrainRun, 'train' | 'data'>,
  model: ModelOutline,
): Promise<void> {
  const {balance, batch, finetune, distill} = train;
  const architecture = balance.kind === 'bias' ? withBiases(model.architecture) : model.architecture;
  refuseUnevenPool(architecture, balance);
  requireRoutable({...train, architecture, tokens: batch.sequences * data.sequenceLength});
  refuseLongRows(model, data.sequenceLength);
  selectParameters(architecture, finetune);
  if (distill) await requireTeacher(distill.from, model, data.sequenceLength);
}

function refuseLongRows({architecture, path}: ModelOutline, sequenceLength: number): void {
  if (sequenceLength <= architecture.contextLength) return;
  throw new DataError(
    `Rows of ${sequenceLength} tokens are asked for, ${path} has ${architecture.contextLength} positions (max_position_embeddings).`,
    {hint: `Lower data.sequenceLength to ${architecture.contextLength} or less.`},
  );
}

async function requireTeacher(from: string, model: ModelOutline, sequenceLength: number): Promise<void> {
  const {vocab, contextLength} = await readArchitecture(from);
  await refuseStranger(from, vocab, model);
  if (sequenceLength <= contextLength) return;
  throw new DataError(
    `train.distill.from: rows of ${sequenceLength} tokens are asked for, ${from} has ${contextLength} positions (max_position_embeddings).`,
    {hint: `Lower data.sequenceLength to ${contextLength} or less.`},
  );
}

/** Its words would mean something else. */
async function refuseStranger(from: string, vocab: number, {architecture, path}: ModelOutline): Promise<void> {
  const isAsWide = vocab === architecture.vocab;
  if (isAsWide && (await tokenizerFingerprint(from)) === (await tokenizerFingerprint(path))) return;
  const why = isAsWide ? 'another tokenizer' : `${vocab} words instead of ${architecture.vocab}`;
  throw new ModelError(`train.distill.from: ${from} has ${why} and cannot teach ${path}.`, {
    hint: 'Name a model of the same tokenizer, such as the dense parent.',
  });
}
