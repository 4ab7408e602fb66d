// koffi, which calls native libraries, with room on its stacks: import it from here alone.
import koffi from 'koffi';

/**
 * The stack that a thread usually has. koffi gives calls on worker threads 128 KiB unless told otherwise, and XLA compiles
 * on the stack of its caller: it overruns that without a word, and the process ends or not as memory happens to lie.
 */
const STACK_BYTES = 8 * 2 ** 20;

// It can be said only once, before any library is loaded.
if (koffi.config().async_stack_size !== STACK_BYTES) {
  koffi.config({sync_stack_size: STACK_BYTES, async_stack_size: STACK_BYTES});
}

export {koffi};
