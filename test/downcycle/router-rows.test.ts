import {describe, expect, it} from 'vitest';
import {routerRows} from '../../src/downcycle/router-rows.js';
import {fixture, fixtureTensors} from './golden.js';

const experts = fixture.partition.experts.map((ids) => Int32Array.from(ids));

describe('routerRows', () => {
  it('is the mean of the gate rows of each expert, as PyTorch has it', () => {
    expect(routerRows(fixtureTensors.gate_proj!, 64, experts)).toBeAllClose(fixtureTensors.router_rows!, {atol: 1e-5});
  });

  it('scores an input by the mean pre-activation of the expert', () => {
    const gate_FD = new Float32Array([1, 0, 0, 1, 2, 2]);
    const row_ED = routerRows(gate_FD, 2, [Int32Array.of(1), Int32Array.of(0, 2)]);
    expect(row_ED).toBeAllClose([0, 1, 1.5, 1]);
  });

  it('does not depend on the order of the neurons in an expert', () => {
    const reversed = experts.map((ids) => ids.slice().reverse());
    expect(routerRows(fixtureTensors.gate_proj!, 64, reversed)).toEqual(
      routerRows(fixtureTensors.gate_proj!, 64, experts),
    );
  });
});
