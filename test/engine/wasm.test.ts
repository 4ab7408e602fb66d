import {expect, it} from 'vitest';
import {startWasm} from '../../src/engine/wasm/backend.js';

it('starting the WebAssembly engine leaves the process its own handlers of uncaught errors', async () => {
  const count = (): number[] => [
    process.listenerCount('uncaughtException'),
    process.listenerCount('unhandledRejection'),
  ];
  const before = count();
  await startWasm();
  expect(count()).toEqual(before);
});
