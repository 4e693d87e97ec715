/** Holds what `train` gave to what Python gave. */

import assert from "node:assert/strict";

import { fromHalf } from "../../js/dtypes.js";

const shapeOf = (value) => (Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : []);

export function close(found, expected, tolerance, what) {
  assert.equal(found.length, expected.length, `${what}: length`);
  found.forEach((value, i) => {
    const difference = Math.abs(value - expected[i]);
    assert.ok(
      difference <= tolerance * (1 + Math.abs(expected[i])),
      `${what}: at ${i}, ${value} is not ${expected[i]}`,
    );
  });
}

export function agree(found, expected) {
  close(found.losses, expected.losses, 1e-4, "losses");
  close(found.accuracies, expected.accuracies, 1e-4, "accuracies");
  assert.ok(found.losses.at(-1) < found.losses[0], "it learned something");
  assert.deepEqual(found.generator, expected.generator, "the masks took as many random numbers");
  close(found.output, expected.output, 1e-3, "inference");
  assert.deepEqual(found.outputShape, expected.outputShape);
  assert.deepEqual(found.unchanged, found.state, "evaluating leaves the state as it is");
  for (const [name, value] of Object.entries(expected.evaluation)) {
    const flat = [value].flat(Infinity);
    const numbers = found.evaluation[name].map(name === "half" ? fromHalf : Number);
    close(numbers, flat, name === "half" ? 2e-3 : 1e-4, name);
    assert.deepEqual(found.evaluationShapes[name], shapeOf(value), name);
  }
  // To the bit: restoring is going on.
  assert.deepEqual(found.again.losses, found.losses.slice(10));
  assert.deepEqual(found.again.state, found.state);
  assert.notDeepEqual(found.middle, found.state);
}
