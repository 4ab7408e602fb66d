// Router weights out of gate weights. Shapes: F neurons, D model width, E routed experts.

/**
 * Router row e = mean of the gate rows of expert e's neurons, float32 [E, D] (ExpertWeaver, eq. 11); score = x . row.
 *
 * @param gate_FD `gate_proj.weight` in the Hugging Face layout [F, D]: row i belongs to neuron i.
 */
export function routerRows(gate_FD: Float32Array, width: number, experts: readonly Int32Array[]): Float32Array {
  const row_ED = new Float32Array(experts.length * width);
  experts.forEach((neurons, e) => {
    row_ED.set(meanRow(gate_FD, width, neurons), e * width);
  });
  return row_ED;
}

/**
 * Row e = a weight row of expert e's representative neuron, brought to length one; float32 [E, D] (CMoE, section 3.2).
 *
 * @param weight_FD `gate_proj.weight` or `up_proj.weight` in the Hugging Face layout [F, D].
 */
export function representativeRows(weight_FD: Float32Array, width: number, representatives: Int32Array): Float32Array {
  const row_ED = new Float32Array(representatives.length * width);
  representatives.forEach((neuron, e) => {
    const row_D = weight_FD.subarray(neuron * width, (neuron + 1) * width);
    const length = Math.sqrt(row_D.reduce((sum, value) => sum + value * value, 0));
    row_ED.set(
      row_D.map((value) => (length > 0 ? value / length : 0)),
      e * width,
    );
  });
  return row_ED;
}

/** Summed in float64, so that the order of neurons does not show in float32. */
function meanRow(gate_FD: Float32Array, width: number, neurons: Int32Array): Float64Array {
  const sum_D = new Float64Array(width);
  for (const neuron of neurons) {
    for (let d = 0, at = neuron * width; d < width; d++, at++) {
      sum_D[d] = (sum_D[d] as number) + (gate_FD[at] as number);
    }
  }
  return sum_D.map((sum) => sum / neurons.length);
}
