import * as tf from '@tensorflow/tfjs';
import {describe, expect} from 'vitest';
import {MATRIX} from '../../src/op/mat-mul.js';
import {type LowRank, mapWeight, project, projectSwiglu, solid} from '../../src/op/weight.js';
import {onEveryEngine} from '../support/engines.js';
import {type Host, ints, normals} from '../support/host.js';
import {checkGradients} from './gradients.js';
