// tfjs as the product has it, and what only tests use.
import {createRequire} from 'node:module';
import type * as types from '@tensorflow/tfjs';

export * from '../../src/engine/tfjs.js';

const tfjs = createRequire(import.meta.url)('@tensorflow/tfjs') as typeof types;

export const {booleanMaskAsync, eye, getBackend, grad, grads, image, sin, squaredDifference, valueAndGrads, variable} =
  tfjs;
