import {createServer} from 'node:net';
import {describe, expect, it} from 'vitest';
import {clusterFromEnvironment} from '../../src/engine/cluster-config.js';
import {joinCluster} from '../../src/engine/collective.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow, onEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

/** What collective-worker.ts prints. */
interface Report {
  readonly rank: number;
  readonly size: number;
  readonly results: Readonly<Record<string, {readonly shape: number[]; readonly values: number[]} | number | string>>;
  readonly before: object;
  readonly after: object;
  readonly left?: boolean;
  readonly error?: string;
  readonly name?: string;
  readonly seconds?: number;
}

describe.skipIf(missingTensorFlow !== null)('a cluster of two processes', () => {
  it('computes sums, collections, parts of sums and exchanges alike', async () => {
    const ports = await freePorts(2);
    const reports = await Promise.all([0, 1].map((rank) => worker('values', ports, rank)));
    const [x, y] = [
      [1, 2, 3, 4, 5, 6, 7, 8],
      [10, 20, 30, 40, 50, 60, 70, 80],
    ] as [number[], number[]];
    const sum = x.map((v, i) => v + y[i]!);
    for (const [rank, {results, ...report}] of reports.entries()) {
      expect(report).toMatchObject({rank, size: 2});
      expect(report.after).toEqual(report.before);
      const half = (values: number[]): number[] => values.slice(4 * rank, 4 * rank + 4);
      expect(results).toMatchObject({
        reduced: {shape: [4, 2], values: sum},
        again: {shape: [4, 2], values: sum},
        gathered: {shape: [8, 2], values: [...x, ...y]},
        scattered: {shape: [2, 2], values: half(sum)},
        exchanged: {shape: [4, 2], values: [...half(x), ...half(y)]},
        integers: {shape: [2], values: [1, 10]},
        large: 3 * 2 ** 18,
        compiled: {shape: [4, 2], values: (rank === 0 ? x : y).map((v) => 2 * v)},
      });
      expect(results.uneven).toContain('2 processes can share evenly; the shape is [3]');
    }
  });

  it('fails in time, not hangs, when the other process ends', async () => {
    const ports = await freePorts(2);
    const [stayed, left] = await Promise.all([worker('stay', ports, 0), worker('leave', ports, 1)]);
    expect(left).toEqual({left: true});
    expect(stayed!.name).toBe('EnvironmentError');
    expect(stayed!.error).toContain('The 2 processes of the cluster lost each other in CollectiveReduceV2');
    expect(stayed!.seconds).toBeLessThan(15); // the limit is 3 s
  });

  it('fails in time when the other process never comes', async () => {
    const report = await worker('alone', await freePorts(2), 0);
    expect(report.name).toBe('EnvironmentError');
    expect(report.seconds).toBeLessThan(15);
  });
});

describe('joinCluster', () => {
  onEngine('wasm', 'says that a cluster needs TensorFlow', () => {
    expect(() => joinCluster({job: 'worker', addresses: ['127.0.0.1:1'], index: 0})).toThrow(EnvironmentError);
  });

  onEngine('tensorflow-eager', 'must come before the first tensor', () => {
    const x = tf.tidy(() => tf.neg(tf.ones([1])));
    expect(() => joinCluster({job: 'worker', addresses: ['127.0.0.1:1'], index: 0})).toThrow('before the first tensor');
    x.dispose();
  });
});

describe('clusterFromEnvironment', () => {
  const read = (config: unknown) => clusterFromEnvironment({TF_CONFIG: JSON.stringify(config)});

  it('is null without TF_CONFIG', () => {
    expect(clusterFromEnvironment({})).toBeNull();
    expect(clusterFromEnvironment({TF_CONFIG: ''})).toBeNull();
  });

  it('takes addresses and place from TF_CONFIG', () => {
    const cluster = {worker: ['a:1', 'b:2']};
    expect(read({cluster, task: {type: 'worker', index: 1}})).toEqual({
      job: 'worker',
      addresses: ['a:1', 'b:2'],
      index: 1,
    });
  });

  it('counts a chief as the first worker', () => {
    const cluster = {chief: ['a:1'], worker: ['b:2', 'c:3']};
    const addresses = ['a:1', 'b:2', 'c:3'];
    expect(read({cluster, task: {type: 'chief', index: 0}})).toEqual({job: 'worker', addresses, index: 0});
    expect(read({cluster, task: {type: 'worker', index: 1}})).toEqual({job: 'worker', addresses, index: 2});
  });

  it('says what is wrong with a TF_CONFIG that cannot be used', () => {
    const cluster = {worker: ['a:1']};
    const messages: [config: unknown, message: string | RegExp][] = [
      [{cluster, task: {type: 'worker', index: 1}}, 'task worker 1 is not among the 1 of cluster.worker'],
      [{cluster, task: {type: 'chief', index: 0}}, 'task chief 0 is not among the 0 of cluster.chief'],
      [{cluster: {worker: ['a']}, task: {type: 'worker', index: 0}}, 'cluster.worker.0: must be host:port'],
      [{cluster: {ps: ['a:1']}, task: {type: 'worker', index: 0}}, /cluster: .*ps/],
      [{cluster}, 'task: '],
    ];
    for (const [config, message] of messages) expect(() => read(config)).toThrow(message);
    expect(() => clusterFromEnvironment({TF_CONFIG: '{'})).toThrow('TF_CONFIG cannot be used: it is not JSON');
    expect(() => clusterFromEnvironment({TF_CONFIG: '{'})).toThrow(EnvironmentError);
  });
});

/** Runs one process of the cluster to its end and returns what it printed. */
async function worker(what: string, ports: readonly number[], index: number): Promise<Report> {
  const cluster = {worker: ports.map((port) => `127.0.0.1:${port}`)};
  const TF_CONFIG = JSON.stringify({cluster, task: {type: 'worker', index}});
  return (await runChild(new URL('./collective-worker.ts', import.meta.url), [what], {TF_CONFIG})) as Report;
}

/** Ports nobody listens on now, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({length: count}, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))));
  const ports = servers.map((server) => (server.address() as {port: number}).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
