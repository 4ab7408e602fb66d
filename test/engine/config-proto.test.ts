import {describe, expect, it} from 'vitest';
import {configProto, serverDef} from '../../src/engine/native/config-proto.js';

/** Fields of a protocol buffer by number, read by the wire format's own rules. */
function decode(bytes: Uint8Array): Map<number, (number | Uint8Array)[]> {
  const fields = new Map<number, (number | Uint8Array)[]>();
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const length = varint();
    const isBytes = (tag & 7) === 2;
    const value = isBytes ? bytes.subarray(at, at + length) : length;
    if (isBytes) at += length;
    fields.set(tag >>> 3, [...(fields.get(tag >>> 3) ?? []), value]);
  }
  return fields;
}

const inside = (fields: Map<number, (number | Uint8Array)[]>, field: number, index = 0) =>
  decode(fields.get(field)![index] as Uint8Array);
const textOf = (value: unknown): string => Buffer.from(value as Uint8Array).toString();

describe('configProto', () => {
  it('carries threads, memory growth and soft placement', () => {
    const config = decode(configProto({threads: 300, allowGrowth: true, gpu: true}));
    expect(config.get(2)).toEqual([300]);
    expect(inside(config, 6).get(4)).toEqual([1]);
    expect(config.get(7)).toEqual([1]);
    expect(config.has(1)).toBe(false);
  });

  it('counts no GPU when there shall be none', () => {
    const count = inside(decode(configProto({threads: 0, allowGrowth: false, gpu: false})), 1);
    expect(textOf(count.get(1)![0])).toBe('GPU');
    expect(count.get(2)).toEqual([0]);
  });
});

describe('serverDef', () => {
  it('names the job, every address with its index, this task, the leader and the protocol', () => {
    const addresses = ['10.0.0.1:2222', '10.0.0.2:2222'];
    const server = decode(serverDef({job: 'worker', addresses, index: 1}));
    const job = inside(inside(server, 1), 1);
    expect(textOf(job.get(1)![0])).toBe('worker');
    const tasks = job.get(2)!.map((task) => decode(task as Uint8Array));
    expect(tasks.map((task) => [task.get(1)![0], textOf(task.get(2)![0])])).toEqual(
      addresses.map((one, i) => [i, one]),
    );
    expect([textOf(server.get(2)![0]), server.get(3), textOf(server.get(5)![0])]).toEqual(['worker', [1], 'grpc']);
    const experimental = inside(inside(server, 4), 16);
    expect(textOf(experimental.get(1)![0])).toBe('/job:worker/replica:0/task:0');
  });
});
