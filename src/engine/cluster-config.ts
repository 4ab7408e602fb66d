import {z} from 'zod';
import {EnvironmentError} from '../util/errors.js';
import type {ClusterConfig} from './native/config-proto.js';

const address = z.string().regex(/^\S+:\d+$/, 'must be host:port');

/** `TF_CONFIG` as TensorFlow's multi-worker training defines it; a chief is the first worker. */
const schema = z.object({
  cluster: z.strictObject({
    chief: z.array(address).length(1).optional(),
    worker: z.array(address).optional(),
  }),
  task: z.object({type: z.enum(['chief', 'worker']), index: z.int().min(0)}),
});

/** The environment variable that names the processes of a cluster. */
const CLUSTER_VARIABLE = 'TF_CONFIG';

/**
 * This process's cluster as the standard TF_CONFIG variable gives it; null without one.
 *
 * @throws EnvironmentError if it is not JSON, lacks a part, or names a task that the cluster has not.
 */
export function clusterFromEnvironment(env: NodeJS.ProcessEnv): ClusterConfig | null {
  const text = env[CLUSTER_VARIABLE];
  if (!text) return null;
  const {cluster, task} = parse(text);
  const {chief = [], worker = []} = cluster;
  const own = task.type === 'chief' ? chief : worker;
  if (task.index >= own.length) {
    throw wrong(`task ${task.type} ${task.index} is not among the ${own.length} of cluster.${task.type}`);
  }
  // One job of equals, whatever they are called: the first of them leads.
  const index = task.type === 'chief' ? task.index : chief.length + task.index;
  return {job: 'worker', addresses: [...chief, ...worker], index};
}

function parse(text: string): z.output<typeof schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw wrong('it is not JSON', cause);
  }
  const {data, error} = schema.safeParse(value);
  if (data) return data;
  throw wrong(error.issues.map(({path, message}) => `${path.join('.')}: ${message}`).join('; '));
}

function wrong(what: string, cause?: unknown): EnvironmentError {
  return new EnvironmentError(`${CLUSTER_VARIABLE} cannot be used: ${what}.`, {
    hint: 'It looks like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.',
    cause,
  });
}
