import type {Architecture} from '../model/architecture.js';
import {initialValues} from '../model/init.js';
import type {ParameterSpec} from '../model/parameters.js';
import {transpose} from '../util/transpose.js';

/** A router drawn at random as it stands on disk, float32 [E, D]; see {@link initialValues}. */
export function freshRouter(router: ParameterSpec, architecture: Architecture, seed: number): Float32Array {
  const [width = 0, experts = 0] = router.shape;
  const values = initialValues(router, architecture, seed);
  const onDisk = new Float32Array(values.length);
  transpose(values, width, experts, onDisk);
  return onDisk;
}
