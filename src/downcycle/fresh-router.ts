import type {Architecture} from '../model/architecture.js';
import {initialValues} from '../model/init.js';
import type {ParameterSpec} from '../model/parameters.js';
import {transposed} from '../util/transpose.js';

/** A router drawn at random as it stands on disk, float32 [E, D]; see {@link initialValues}. */
export function freshRouter(router: ParameterSpec, architecture: Architecture, seed: number): Float32Array {
  const [width = 0, experts = 0] = router.shape;
  return transposed(initialValues(router, architecture, seed), width, experts);
}
