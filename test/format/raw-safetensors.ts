import {writeFile} from 'node:fs/promises';

/** Writes a safetensors file byte by byte, independently of the writer, so that it can also be wrong. */
export async function writeRaw(
  path: string,
  header: unknown,
  data: Uint8Array | number = 0,
  {length}: {length?: bigint} = {},
): Promise<string> {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  await writeFile(path, Buffer.concat([size, json, typeof data === 'number' ? Buffer.alloc(data) : data]));
  return path;
}

/** The header entry of a tensor. */
export function entry(dtype: string, shape: readonly unknown[], begin: number, end: number): Record<string, unknown> {
  return {dtype, shape, data_offsets: [begin, end]};
}
