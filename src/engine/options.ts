import {z} from 'zod';

/** The `engine` section of a config: what computes, and how precisely. */
export const engineSchema = z.strictObject({
  device: z
    .enum(['auto', 'cpu', 'cuda', 'wasm'])
    .default('auto')
    .describe('auto takes a GPU if there is one, else the processor, else the slow built-in WebAssembly engine.'),
  precision: z
    .enum(['auto', 'float32', 'bfloat16'])
    .default('auto')
    .describe('Rounding of matmul inputs; weights stay float32. auto is bfloat16 on CUDA and float32 elsewhere.'),
  library: z
    .string()
    .optional()
    .describe('Folder that holds libtensorflow_cc.so.2 and libtensorflow_framework.so.2; found by itself if left out.'),
  threads: z.int().min(0).default(0).describe('Threads inside one operation; 0 is one per core.'),
});

/** The same with everything optional, as a caller writes them. */
export type EngineInput = z.input<typeof engineSchema>;
