/**
 * One process of a cluster for collective.test.ts: `collective-worker.ts <what>` with TF_CONFIG set.
 *
 * Prints one line of JSON: what it got, or the error.
 */

import {clusterFromEnvironment} from '../../src/engine/cluster-config.js';
import {type Cluster, joinCluster} from '../../src/engine/collective.js';
import {compile} from '../../src/engine/compile.js';
import {liveTensors} from '../../src/engine/memory.js';
import {startEngine} from '../../src/engine/start.js';
import * as tf from '../support/tfjs.js';

const config = clusterFromEnvironment(process.env);
if (!config) throw new Error('TF_CONFIG is not set');
await startEngine({device: 'cpu', threads: 1});
const what = process.argv[2];

try {
  const cluster = joinCluster(config, {timeout: what === 'values' ? 60 : 3});
  print(what === 'values' ? await values(cluster) : await alone(cluster));
} catch (error) {
  print({error: String(error), name: error instanceof Error ? error.name : ''});
}
process.exit(0); // the cluster's server would keep the process

/** Every operation once, all-reduce twice with one key. */
async function values({rank, size, allReduce, allGather, reduceScatter, allToAll}: Cluster): Promise<object> {
  const before = liveTensors();
  const x = tf.tensor2d(
    [1, 2, 3, 4, 5, 6, 7, 8].map((v) => (rank === 0 ? v : 10 * v)),
    [4, 2],
  );
  const integers = tf.tensor1d([rank, 5], 'int32');
  const large = tf.fill([1 << 18], rank + 1);
  const uneven = tf.ones([3]);
  const double = compile((t: tf.Tensor) => tf.add(t, t));
  const results = {
    reduced: await read(allReduce(x, 1)),
    again: await read(allReduce(x, 1)),
    gathered: await read(allGather(x, 2)),
    scattered: await read(reduceScatter(x, 3)),
    exchanged: await read(allToAll(x, 4)),
    integers: await read(allReduce(integers, 5)),
    large: await total(allReduce(large, 6)),
    compiled: await read(double(x)),
    uneven: await reduceScatter(uneven, 7).catch(String),
  };
  tf.dispose([x, integers, large, uneven]);
  return {rank, size, results, before, after: liveTensors()};
}

/** The other process comes and goes, or never comes. */
async function alone({allReduce}: Cluster): Promise<object> {
  const x = tf.ones([2]);
  if (what === 'leave') {
    await read(allReduce(x, 1));
    return {left: true};
  }
  if (what === 'stay') await read(allReduce(x, 1));
  const begin = Date.now();
  const error: unknown = await allReduce(x, 2).then(
    () => 'no error',
    (reason: unknown) => reason,
  );
  const name = error instanceof Error ? error.name : '';
  return {error: String(error), name, seconds: (Date.now() - begin) / 1000};
}

async function read(result: Promise<tf.Tensor>): Promise<{shape: number[]; values: number[]}> {
  const tensor = await result;
  const values = {shape: tensor.shape, values: Array.from(tensor.dataSync())};
  tensor.dispose();
  return values;
}

async function total(result: Promise<tf.Tensor>): Promise<number> {
  return (await read(result)).values.reduce((a, b) => a + b, 0);
}

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
