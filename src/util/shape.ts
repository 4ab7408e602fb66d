/** How many numbers a shape holds; a scalar's shape is empty and holds one. */
export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
