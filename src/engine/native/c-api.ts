import {closeSync, openSync} from 'node:fs';
import {join} from 'node:path';
import type {LibraryHandle} from 'koffi';
import {EnvironmentError} from '../../util/errors.js';
import {koffi} from './koffi.js';

declare const opaque: unique symbol;
/** An address inside TensorFlow; never looked into. */
export interface Pointer {
  readonly [opaque]: true;
}

/** One output of a graph node: `TF_Output`, passed by value. */
export interface GraphOutput {
  readonly oper: Pointer;
  readonly index: number;
}

type Dims = readonly bigint[];
type NullablePointer = Pointer | null;

/** The part of TensorFlow's C API that the engine uses, typed. Argument names follow `c_api.h` and `eager/c_api.h`. */
export interface CApi {
  TF_Version(): string;
  TF_NewStatus(): Pointer;
  TF_DeleteStatus(status: Pointer): void;
  TF_GetCode(status: Pointer): number;
  TF_Message(status: Pointer): string;
  TFE_NewContextOptions(): Pointer;
  TFE_DeleteContextOptions(options: Pointer): void;
  TFE_ContextOptionsSetConfig(options: Pointer, proto: Uint8Array, length: number, status: Pointer): void;
  TFE_ContextOptionsSetDevicePlacementPolicy(options: Pointer, policy: number): void;
  TFE_NewContext(options: Pointer, status: Pointer): Pointer;
  TFE_ContextListDevices(context: Pointer, status: Pointer): Pointer;
  TF_DeviceListCount(list: Pointer): number;
  TF_DeviceListName(list: Pointer, index: number, status: Pointer): string;
  TF_DeviceListType(list: Pointer, index: number, status: Pointer): string;
  TF_DeleteDeviceList(list: Pointer): void;
  TFE_ContextAddFunction(context: Pointer, fn: Pointer, status: Pointer): void;
  TFE_ContextRemoveFunction(context: Pointer, name: string, status: Pointer): void;
  TFE_EnableCollectiveOps(context: Pointer, proto: Uint8Array, length: number, status: Pointer): void;
  TF_AllocateTensor(dtype: number, dims: Dims, numDims: number, bytes: number): Pointer;
  TF_TensorData(tensor: Pointer): NullablePointer;
  TF_TensorByteSize(tensor: Pointer): number | bigint;
  TF_TensorType(tensor: Pointer): number;
  TF_DeleteTensor(tensor: Pointer): void;
  TFE_NewTensorHandle(tensor: Pointer, status: Pointer): Pointer;
  TFE_DeleteTensorHandle(handle: Pointer): void;
  TFE_TensorHandleDataType(handle: Pointer): number;
  TFE_TensorHandleNumDims(handle: Pointer, status: Pointer): number;
  TFE_TensorHandleDim(handle: Pointer, axis: number, status: Pointer): number | bigint;
  TFE_TensorHandleResolve(handle: Pointer, status: Pointer): Pointer;
  TFE_NewOp(context: Pointer, name: string, status: Pointer): Pointer;
  TFE_DeleteOp(op: Pointer): void;
  TFE_OpSetDevice(op: Pointer, device: string, status: Pointer): void;
  TFE_OpAddInput(op: Pointer, handle: Pointer, status: Pointer): void;
  TFE_OpAddInputList(op: Pointer, handles: readonly Pointer[], count: number, status: Pointer): void;
  TFE_OpSetAttrType(op: Pointer, name: string, value: number): void;
  TFE_OpSetAttrTypeList(op: Pointer, name: string, values: readonly number[], count: number): void;
  TFE_OpSetAttrInt(op: Pointer, name: string, value: number): void;
  TFE_OpSetAttrIntList(op: Pointer, name: string, values: Dims, count: number): void;
  TFE_OpSetAttrFloat(op: Pointer, name: string, value: number): void;
  TFE_OpSetAttrBool(op: Pointer, name: string, value: number): void;
  TFE_OpSetAttrString(op: Pointer, name: string, value: string, length: number): void;
  TFE_OpSetAttrShape(op: Pointer, name: string, dims: Dims, numDims: number, status: Pointer): void;
  TFE_Execute: Executor;
  TF_NewGraph(): Pointer;
  TF_DeleteGraph(graph: Pointer): void;
  TF_NewOperation(graph: Pointer, type: string, name: string): Pointer;
  TF_FinishOperation(description: Pointer, status: Pointer): Pointer;
  TF_AddInput(description: Pointer, input: GraphOutput): void;
  TF_AddInputList(description: Pointer, inputs: readonly GraphOutput[], count: number): void;
  TF_AddControlInput(description: Pointer, input: Pointer): void;
  TF_SetAttrType(description: Pointer, name: string, value: number): void;
  TF_SetAttrTypeList(description: Pointer, name: string, values: readonly number[], count: number): void;
  TF_SetAttrInt(description: Pointer, name: string, value: number): void;
  TF_SetAttrIntList(description: Pointer, name: string, values: Dims, count: number): void;
  TF_SetAttrFloat(description: Pointer, name: string, value: number): void;
  TF_SetAttrBool(description: Pointer, name: string, value: number): void;
  TF_SetAttrString(description: Pointer, name: string, value: string, length: number): void;
  TF_SetAttrShape(description: Pointer, name: string, dims: Dims, numDims: number): void;
  TF_SetAttrTensor(description: Pointer, name: string, value: Pointer, status: Pointer): void;
  TF_SetAttrFuncName(description: Pointer, name: string, value: string, length: number): void;
  TF_FunctionSetAttrValueProto(fn: Pointer, name: string, proto: Uint8Array, length: number, status: Pointer): void;
  TF_GraphSetTensorShape(graph: Pointer, output: GraphOutput, dims: Dims, numDims: number, status: Pointer): void;
  TF_OperationNumOutputs(operation: Pointer): number;
  TF_OperationOutputType(output: GraphOutput): number;
  TF_GraphGetTensorNumDims(graph: Pointer, output: GraphOutput, status: Pointer): number;
  TF_GraphGetTensorShape(
    graph: Pointer,
    output: GraphOutput,
    dims: (number | bigint)[],
    numDims: number,
    status: Pointer,
  ): void;
  TF_GraphToFunctionWithControlOutputs(
    body: Pointer,
    name: string,
    appendHash: number,
    numOpers: number,
    opers: null,
    numInputs: number,
    inputs: readonly GraphOutput[],
    numOutputs: number,
    outputs: readonly GraphOutput[],
    outputNames: null,
    numControlOutputs: number,
    controlOutputs: readonly Pointer[] | null,
    controlOutputNames: null,
    options: null,
    description: null,
    status: Pointer,
  ): Pointer;
  TF_DeleteFunction(fn: Pointer): void;
}

/** `TFE_Execute`, which can also run on a worker thread so that the event loop stays free. */
interface Executor {
  (op: Pointer, outputs: NullablePointer[], numOutputs: [number], status: Pointer): void;
  async(
    op: Pointer,
    outputs: NullablePointer[],
    numOutputs: [number],
    status: Pointer,
    done: (error: Error | null) => void,
  ): void;
}

/** C signatures without their names, in the order of {@link CApi}. */
const SIGNATURES: Record<keyof CApi, readonly [result: string, args: string]> = {
  TF_Version: ['const char*', ''],
  TF_NewStatus: ['void*', ''],
  TF_DeleteStatus: ['void', 'void*'],
  TF_GetCode: ['int', 'void*'],
  TF_Message: ['const char*', 'void*'],
  TFE_NewContextOptions: ['void*', ''],
  TFE_DeleteContextOptions: ['void', 'void*'],
  TFE_ContextOptionsSetConfig: ['void', 'void*, void*, size_t, void*'],
  TFE_ContextOptionsSetDevicePlacementPolicy: ['void', 'void*, int'],
  TFE_NewContext: ['void*', 'void*, void*'],
  TFE_ContextListDevices: ['void*', 'void*, void*'],
  TF_DeviceListCount: ['int', 'void*'],
  TF_DeviceListName: ['const char*', 'void*, int, void*'],
  TF_DeviceListType: ['const char*', 'void*, int, void*'],
  TF_DeleteDeviceList: ['void', 'void*'],
  TFE_ContextAddFunction: ['void', 'void*, void*, void*'],
  TFE_ContextRemoveFunction: ['void', 'void*, const char*, void*'],
  TFE_EnableCollectiveOps: ['void', 'void*, void*, size_t, void*'],
  TF_AllocateTensor: ['void*', 'int, int64_t*, int, size_t'],
  TF_TensorData: ['void*', 'void*'],
  TF_TensorByteSize: ['size_t', 'void*'],
  TF_TensorType: ['int', 'void*'],
  TF_DeleteTensor: ['void', 'void*'],
  TFE_NewTensorHandle: ['void*', 'void*, void*'],
  TFE_DeleteTensorHandle: ['void', 'void*'],
  TFE_TensorHandleDataType: ['int', 'void*'],
  TFE_TensorHandleNumDims: ['int', 'void*, void*'],
  TFE_TensorHandleDim: ['int64_t', 'void*, int, void*'],
  TFE_TensorHandleResolve: ['void*', 'void*, void*'],
  TFE_NewOp: ['void*', 'void*, const char*, void*'],
  TFE_DeleteOp: ['void', 'void*'],
  TFE_OpSetDevice: ['void', 'void*, const char*, void*'],
  TFE_OpAddInput: ['void', 'void*, void*, void*'],
  TFE_OpAddInputList: ['void', 'void*, void**, int, void*'],
  TFE_OpSetAttrType: ['void', 'void*, const char*, int'],
  TFE_OpSetAttrTypeList: ['void', 'void*, const char*, int*, int'],
  TFE_OpSetAttrInt: ['void', 'void*, const char*, int64_t'],
  TFE_OpSetAttrIntList: ['void', 'void*, const char*, int64_t*, int'],
  TFE_OpSetAttrFloat: ['void', 'void*, const char*, float'],
  TFE_OpSetAttrBool: ['void', 'void*, const char*, uint8_t'],
  TFE_OpSetAttrString: ['void', 'void*, const char*, const char*, size_t'],
  TFE_OpSetAttrShape: ['void', 'void*, const char*, int64_t*, int, void*'],
  TFE_Execute: ['void', 'void*, _Out_ void**, _Inout_ int*, void*'],
  TF_NewGraph: ['void*', ''],
  TF_DeleteGraph: ['void', 'void*'],
  TF_NewOperation: ['void*', 'void*, const char*, const char*'],
  TF_FinishOperation: ['void*', 'void*, void*'],
  TF_AddInput: ['void', 'void*, TF_Output'],
  TF_AddInputList: ['void', 'void*, TF_Output*, int'],
  TF_AddControlInput: ['void', 'void*, void*'],
  TF_SetAttrType: ['void', 'void*, const char*, int'],
  TF_SetAttrTypeList: ['void', 'void*, const char*, int*, int'],
  TF_SetAttrInt: ['void', 'void*, const char*, int64_t'],
  TF_SetAttrIntList: ['void', 'void*, const char*, int64_t*, int'],
  TF_SetAttrFloat: ['void', 'void*, const char*, float'],
  TF_SetAttrBool: ['void', 'void*, const char*, uint8_t'],
  TF_SetAttrString: ['void', 'void*, const char*, const char*, size_t'],
  TF_SetAttrShape: ['void', 'void*, const char*, int64_t*, int'],
  TF_SetAttrFuncName: ['void', 'void*, const char*, const char*, size_t'],
  TF_FunctionSetAttrValueProto: ['void', 'void*, const char*, void*, size_t, void*'],
  TF_GraphSetTensorShape: ['void', 'void*, TF_Output, int64_t*, int, void*'],
  TF_SetAttrTensor: ['void', 'void*, const char*, void*, void*'],
  TF_OperationNumOutputs: ['int', 'void*'],
  TF_OperationOutputType: ['int', 'TF_Output'],
  TF_GraphGetTensorNumDims: ['int', 'void*, TF_Output, void*'],
  TF_GraphGetTensorShape: ['void', 'void*, TF_Output, _Out_ int64_t*, int, void*'],
  TF_GraphToFunctionWithControlOutputs: [
    'void*',
    'void*, const char*, uint8_t, int, void**, int, TF_Output*, int, TF_Output*, void*, int, void**, void*, void*, const char*, void*',
  ],
  TF_DeleteFunction: ['void', 'void*'],
};

let isGraphOutputDefined = false;

/** Tells koffi the C struct behind {@link GraphOutput}; it takes a name once a process. */
function defineGraphOutput(): void {
  if (!isGraphOutputDefined) koffi.struct('TF_Output', {oper: 'void*', index: 'int'});
  isGraphOutputDefined = true;
}

/**
 * Loads TensorFlow's two shared libraries from `folder` and binds the C API.
 *
 * @throws EnvironmentError if a library cannot be loaded (the loader's own reason is kept).
 */
export function loadCApi(folder: string): CApi {
  try {
    const [framework, library] = withoutNotices(() => [
      koffi.load(join(folder, 'libtensorflow_framework.so.2'), {global: true}),
      koffi.load(join(folder, 'libtensorflow_cc.so.2')),
    ]) as [LibraryHandle, LibraryHandle];
    keepLoaded(join(folder, 'libtensorflow_framework.so.2'));
    keepLoaded(join(folder, 'libtensorflow_cc.so.2'));
    multiplyInFloat32(framework);
    defineGraphOutput();
    const bound = Object.entries(SIGNATURES).map(([name, [result, args]]) => [
      name,
      library.func(`${result} ${name}(${args})`),
    ]);
    return Object.fromEntries(bound) as CApi;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new EnvironmentError(`TensorFlow in ${folder} could not be loaded: ${reason}.`, {
      hint: 'Run `downcycle doctor` to see what is missing.',
      cause: error,
    });
  }
}

/**
 * Has GPUs multiply float32 as such: TensorFlow would round inputs to 10 bits (TF32) where nobody asked for it. What
 * may be rounded is said by a function's precision. `tsl::enable_tensor_float_32_execution` is no part of the C API.
 */
function multiplyInFloat32(framework: LibraryHandle): void {
  (framework.func('void _ZN3tsl32enable_tensor_float_32_executionEb(bool)') as (isAllowed: boolean) => void)(false);
}

/** `RTLD_LAZY`, `RTLD_NOLOAD` (only what is loaded already) and `RTLD_NODELETE` of dlfcn.h. */
const KEEP_LOADED = 0x1 | 0x4 | 0x1000;

/**
 * Has a loaded library stay until the process is gone: Node would unload it first, and what it left to do at the very end
 * would then lie in memory that is no longer there.
 */
function keepLoaded(path: string): void {
  if (!dlopen()(path, KEEP_LOADED)) throw new Error(`${path} is loaded, and cannot be kept so`);
}

/** The GNU C library has `dlopen` in itself since 2.34, and beside it before. */
function dlopen(): (path: string, mode: number) => Pointer | null {
  const declaration = 'void* dlopen(const char*, int)';
  try {
    return koffi.load('libc.so.6').func(declaration);
  } catch {
    return koffi.load('libdl.so.2').func(declaration);
  }
}

/**
 * Runs `load` with standard error closed: TensorFlow's libraries print a notice about oneDNN as they are loaded, before
 * any setting of theirs can reach them. What the loader refuses comes as an exception.
 */
function withoutNotices<T>(load: () => T): T {
  if (Number(process.env.TF_CPP_MIN_LOG_LEVEL ?? 0) === 0) return load();
  const libc = koffi.load('libc.so.6');
  const dup = libc.func('int dup(int)') as (from: number) => number;
  const dup2 = libc.func('int dup2(int, int)') as (from: number, to: number) => number;
  const kept = dup(2);
  const nowhere = openSync('/dev/null', 'w');
  dup2(nowhere, 2);
  try {
    return load();
  } finally {
    dup2(kept, 2);
    closeSync(kept);
    closeSync(nowhere);
  }
}

/** The memory behind a native pointer as bytes; valid only while its owner lives. */
export function viewMemory(pointer: Pointer, bytes: number): Uint8Array {
  return new Uint8Array(koffi.view(pointer, bytes));
}
