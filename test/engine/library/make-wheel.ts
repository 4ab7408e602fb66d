import {createHash} from 'node:crypto';
import {deflateRawSync} from 'node:zlib';

/** A file to be put into a hand-made archive. */
export interface MadeFile {
  readonly name: string;
  readonly data: Buffer;
  readonly isStored?: boolean;
  readonly isExecutable?: boolean;
  /** Size to claim instead of the true one. */
  readonly claimedSize?: number;
}

/** A wheel of `files` with a true RECORD, except for the files whose hash is given in `hashes`. */
export function makeWheel(files: readonly MadeFile[], hashes: Record<string, string> = {}): Buffer {
  const lines = files.map(({name, data}) => `${name},sha256=${hashes[name] ?? sha256(data)},${data.length}`);
  const record = `${[...lines, 'made-1.dist-info/RECORD,,'].join('\n')}\n`;
  return makeZip([...files, {name: 'made-1.dist-info/RECORD', data: Buffer.from(record)}]);
}

/** The wheel of a TensorFlow in miniature: both libraries, a header and Python code. */
export function tinyTensorFlow(hashes: Record<string, string> = {}): Buffer {
  const file = (name: string, text: string): MadeFile => ({name, data: Buffer.from(text)});
  return makeWheel(
    [
      file('tensorflow/__init__.py', 'raise SystemError'),
      file('tensorflow/libtensorflow_cc.so.2', 'cc '.repeat(5000)),
      file('tensorflow/libtensorflow_framework.so.2', 'framework'),
      file('tensorflow/include/c_api.h', '// header'),
    ],
    hashes,
  );
}

/** A ZIP archive, written after APPNOTE and independently of the reader. */
export function makeZip(files: readonly MadeFile[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const file of files) {
    const packed = file.isStored ? file.data : deflateRawSync(file.data);
    const local = localHeader(file, packed.length);
    directory.push(centralHeader(file, packed.length, offset));
    parts.push(local, packed);
    offset += local.length + packed.length;
  }
  const list = Buffer.concat(directory);
  return Buffer.concat([...parts, list, endRecord(files.length, list.length, offset)]);
}

/** SHA-256 as RECORD writes it. */
function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('base64').replaceAll('+', '-').replaceAll('/', '_').replace('=', '');
}

function localHeader(file: MadeFile, packedSize: number): Buffer {
  const header = Buffer.alloc(30);
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(20, 4);
  writeCommon(header, 8, file, packedSize);
  return Buffer.concat([header, Buffer.from(file.name)]);
}

function centralHeader(file: MadeFile, packedSize: number, offset: number): Buffer {
  const header = Buffer.alloc(46);
  header.writeUInt32LE(0x02014b50, 0);
  header.writeUInt16LE(20, 6);
  writeCommon(header, 10, file, packedSize);
  header.writeUInt32LE((file.isExecutable ? 0o100755 : 0o100644) * 2 ** 16, 38);
  header.writeUInt32LE(offset, 42);
  return Buffer.concat([header, Buffer.from(file.name)]);
}

function writeCommon(
  header: Buffer,
  at: number,
  {name, data, isStored, claimedSize}: MadeFile,
  packedSize: number,
): void {
  header.writeUInt16LE(isStored ? 0 : 8, at);
  header.writeUInt32LE(packedSize, at + 10);
  header.writeUInt32LE(claimedSize ?? data.length, at + 14);
  header.writeUInt16LE(Buffer.byteLength(name), at + 18);
}

function endRecord(count: number, bytes: number, offset: number): Buffer {
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(bytes, 12);
  end.writeUInt32LE(offset, 16);
  return end;
}
