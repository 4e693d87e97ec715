/** Holds what `train` gave to what Python gave. */

import assert from "node:assert/strict";

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
  // To the bit: restoring is going on.
  assert.deepEqual(found.again.losses, found.losses.slice(10));
  assert.deepEqual(found.again.state, found.state);
  assert.notDeepEqual(found.middle, found.state);
}
