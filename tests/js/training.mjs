/**
 * Train as Python did, with any of the ONNX Runtimes; what comes out is compared by the caller.
 * It runs in Node and in the browser alike.
 */
export async function train(ort, { TrainingSession }, source, expected) {
  const session = await TrainingSession.load(ort, source);
  const losses = [];
  const accuracies = [];
  const run = async (batches) => {
    for (const batch of batches) {
      const { loss, accuracy } = await session.step(batch);
      losses.push(loss);
      accuracies.push(accuracy);
    }
  };
  await run(expected.batches.slice(0, 10));
  const middle = await session.save();
  await run(expected.batches.slice(10));
  const first = { losses: [...losses], accuracies: [...accuracies] };
  const state = await session.save();
  const generator = (await session.state()).global_seed_generator.data;
  const evaluation = await session.evaluate(expected.batches);
  const unchanged = await session.save();
  const inference = await session.infer({ [expected.inferenceInput]: expected.batches[0].x });

  await session.restore(middle);
  losses.length = 0;
  await run(expected.batches.slice(10));
  const again = { losses: [...losses], state: await session.save() };
  await session.release();
  return {
    ...first,
    middle: [...middle],
    state: [...state],
    generator: [...generator].map(String),
    output: [...inference.output],
    outputShape: inference.output.shape,
    evaluation: numbers(evaluation),
    evaluationShapes: shapes(evaluation),
    unchanged: [...unchanged],
    again: { losses: again.losses, state: [...again.state] },
  };
}

// What can be sent out of a browser.
const listed = (value) => (typeof value === "object" ? [...value] : [value]).map(Number);
const numbers = (found) =>
  Object.fromEntries(Object.entries(found).map(([name, value]) => [name, listed(value)]));
const shapes = (found) =>
  Object.fromEntries(Object.entries(found).map(([name, value]) => [name, value.shape ?? []]));
