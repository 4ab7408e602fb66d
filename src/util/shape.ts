/** How many numbers a shape holds; a scalar's shape is empty and holds one. */
export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Numbers in a row of a shape: a run along its last axis; one of a vector, whose rows are its numbers. */
export function rowLength(shape: readonly number[]): number {
  return shape.length > 1 ? (shape.at(-1) ?? 1) : 1;
}
