import {describe, expect, it} from 'vitest';
import {entryInstructions, signatureOf} from '../../scripts/bench/hlo.js';

const MODULE = `HloModule step, is_scheduled=true

%fused (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %m = f32[8,4]{1,0} multiply(%p, %p)
}

ENTRY %step (x.1: f32[8,4], w: f32[8,16], s: s32[3,2,5]) -> (f32[4,16]) {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %w = f32[8,16]{1,0} parameter(1)
  %b = bf16[2,3,4]{2,1,0} constant({...})
  %c = bf16[2,4,5]{2,1,0} constant({...})
  %f = f32[8,4]{1,0} fusion(%x.1), kind=kLoop, calls=%fused, metadata={op_name="dot(a)"}
  %MatMul_1 = f32[4,16]{1,0} dot(%f, %w), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  %batch = bf16[2,3,5]{2,1,0} dot(%b, %c), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  %top = (f32[8,2]{1,0}, s32[8,2]{1,0}) custom-call(%x.1), custom_call_target="TopK"
  ROOT %t = (f32[4,16]{1,0}) tuple(%MatMul_1)
}

%after (p: f32[1]) -> f32[1] {
  ROOT %p2 = f32[1]{0} parameter(0)
}
`;

describe('entryInstructions', () => {
  const instructions = entryInstructions(MODULE);

  it('are those of the entry computation only, in order', () => {
    expect(instructions.map(({opcode}) => opcode)).toEqual([
      'parameter',
      'parameter',
      'constant',
      'constant',
      'fusion',
      'dot',
      'dot',
      'custom-call',
      'tuple',
    ]);
  });

  it('count two for each multiply-add of a product, over all of a batch', () => {
    expect(instructions.flatMap(({dot}) => dot?.flops ?? [])).toEqual([2 * 4 * 16 * 8, 2 * 2 * 3 * 5 * 4]);
  });

  it('write as many bytes as their results have, all of a tuple together', () => {
    expect(instructions.slice(4, 8).map(({bytes}) => bytes)).toEqual([8 * 4 * 4, 4 * 16 * 4, 2 * 3 * 5 * 2, 8 * 2 * 8]);
  });

  it('of a product name the shapes and the axes that are summed', () => {
    expect(instructions.filter(({dot}) => dot).map(signatureOf)[0]).toBe(
      'dot f32[4,16]{1,0} = [8,4] over 0 x [8,16] over 0',
    );
  });

  it('are none in a text without an entry', () => {
    expect(entryInstructions('HloModule empty\n')).toEqual([]);
  });
});
