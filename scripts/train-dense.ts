// Trains a shipped dense model from random weights, as its config says, and puts the weights and the log into its folder.
import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {loadConfig} from '../src/config/load.js';
import {configHash, resolvedYaml} from '../src/config/resolved.js';
import {openModelFolder} from '../src/format/model-folder.js';
import {architectureFromConfig} from '../src/model/config.js';
import {initialValues} from '../src/model/init.js';
import {loadParameters} from '../src/model/load.js';
import {saveModel} from '../src/model/save.js';
import {checkpointModel, latestCheckpoint} from '../src/train/checkpoint.js';
import type {TrainEvent} from '../src/train/event.js';
import {train} from '../src/train/run.js';
import {writeFileAtomic} from '../src/util/atomic.js';

const [file = 'configs/dense-4m.yaml'] = process.argv.slice(2);
const {config} = await loadConfig(file);
const run = join('checkpoints', `${config.name}-run`);
const scratch = await mkdtemp(join(tmpdir(), 'downcycle-'));
try {
  const start = await randomModel(config.model, config.seed, join(scratch, 'start'));
  const {reason} = await train(
    {
      name: config.name,
      arm: config.name,
      model: start,
      out: run,
      shards: join('checkpoints', 'shards'),
      seed: config.seed,
      data: config.data,
      train: config.train,
      engine: config.engine,
      config: {yaml: resolvedYaml(config), hash: configHash(config)},
      mode: 'resume',
    },
    show,
  );
  if (reason === 'completed') await ship(run, config.model, join(scratch, 'ship'));
} finally {
  await rm(scratch, {recursive: true});
}

/** A folder with fresh weights in the architecture of `model`'s config.json. */
async function randomModel(model: string, seed: number, out: string): Promise<string> {
  const source = JSON.parse(await readFile(join(model, 'config.json'), 'utf8')) as Record<string, unknown>;
  const architecture = architectureFromConfig(source, join(model, 'config.json'));
  const read = (spec: Parameters<typeof initialValues>[0]) => Promise.resolve(initialValues(spec, architecture, seed));
  await saveModel(out, {architecture, config: source, dtype: 'F32', tokenizerFrom: model, read});
  return out;
}

/** Writes the trained weights as bfloat16, and the log of the run, into the model's folder. */
async function ship(runFolder: string, model: string, part: string): Promise<void> {
  const checkpoint = await latestCheckpoint(runFolder);
  if (!checkpoint) throw new Error(`${runFolder} has no checkpoint`);
  const folder = await openModelFolder(checkpointModel(checkpoint.path));
  const architecture = architectureFromConfig(folder.config, folder.path);
  const values = new Map<string, Float32Array>();
  await loadParameters(folder, architecture, ({path}, array) => {
    values.set(path, array);
  });
  await saveModel(part, {
    architecture,
    config: folder.config,
    dtype: 'BF16',
    read: ({path}) => Promise.resolve(values.get(path) ?? new Float32Array(0)),
  });
  await folder.close();
  for (const name of ['config.json', 'model.safetensors']) {
    await writeFileAtomic(join(model, name), await readFile(join(part, name)));
  }
  await writeFileAtomic(join(model, 'log.jsonl'), await readFile(join(runFolder, 'log.jsonl')));
}

function show(event: TrainEvent): void {
  if (event.kind === 'eval') console.log(`step ${event.step}: validation loss ${event.loss.toFixed(4)}`);
  if (event.kind === 'step' && event.step % 100 === 0) {
    const minutes = event.eta === null ? '?' : (event.eta / 60).toFixed(1);
    console.log(`step ${event.step}/${event.steps}: loss ${event.loss.toFixed(4)}, ${minutes} min left`);
  }
}
