/** Settings of a TensorFlow session: `ConfigProto` of `tensorflow/core/protobuf/config.proto`. */
export interface SessionConfig {
  /** Threads inside one operation; 0 lets TensorFlow use one per core. */
  readonly threads: number;
  /** Take GPU memory as needed instead of all of it. */
  readonly allowGrowth: boolean;
  /** Whether GPUs are used if there are any. */
  readonly gpu: boolean;
}

/** One address of a cluster and this process's place in it, as in the standard `TF_CONFIG` variable. */
export interface ClusterConfig {
  readonly job: string;
  readonly addresses: readonly string[];
  readonly index: number;
}

/** The bytes of a ConfigProto (1: devices of a kind; 2 and 5: threads; 6.4: GPU memory growth; 7: soft placement). */
export function configProto({threads, allowGrowth, gpu}: SessionConfig): Uint8Array {
  const noGpu = message(1, Buffer.concat([text(1, 'GPU'), varint(2, 0)]));
  const growth = message(6, varint(4, allowGrowth ? 1 : 0));
  return Buffer.concat([...(gpu ? [] : [noGpu]), varint(2, threads), varint(5, 0), growth, varint(7, 1)]);
}

/**
 * The bytes of a ServerDef for collective operations over gRPC.
 *
 * Task 0 leads the group (`ConfigProto.experimental.collective_group_leader`).
 */
export function serverDef({job, addresses, index}: ClusterConfig): Uint8Array {
  const tasks = addresses.map((address, i) => message(2, Buffer.concat([varint(1, i), text(2, address)])));
  const cluster = message(1, Buffer.concat([text(1, job), ...tasks]));
  const leader = message(16, text(1, `/job:${job}/replica:0/task:0`));
  return Buffer.concat([message(1, cluster), text(2, job), varint(3, index), message(4, leader), text(5, 'grpc')]);
}

function encodeVarint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest & 127) | 128);
    rest >>>= 7;
  }
  return Buffer.from([...bytes, rest]);
}

function varint(field: number, value: number): Buffer {
  return Buffer.concat([encodeVarint(field << 3), encodeVarint(value)]);
}

function message(field: number, body: Uint8Array): Buffer {
  return Buffer.concat([encodeVarint((field << 3) | 2), encodeVarint(body.length), body]);
}

function text(field: number, value: string): Buffer {
  return message(field, Buffer.from(value));
}
