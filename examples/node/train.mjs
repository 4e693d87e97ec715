// Train from an artifact in Node:  node examples/node/train.mjs FOLDER [STATE.safetensors]
//
// The artifact is one whose step takes `x` (floats) and `y` (class numbers), such as the one that
// examples/browser/make_artifact.py writes. `npm install --prefix js --ignore-scripts` comes first.
import { existsSync } from "node:fs";

import * as ort from "../../js/node_modules/onnxruntime-node/dist/index.js";
import { loadState, saveState } from "../../js/node.js";
import { TrainingSession } from "../../js/onnxtape.js";

const [folder, stateFile] = process.argv.slice(2);
const session = await TrainingSession.load(ort.default, folder);
if (stateFile && existsSync(stateFile)) await loadState(session, stateFile);

// Two kinds of pictures to tell apart: ink in the upper half is a 0, in the lower half a 1.
const [, pixels] = session.inputs.find(({ name }) => name === "x").shape;
const makeBatch = (size) => {
  const y = Array.from({ length: size }, (_, i) => i % 2);
  const ink = (i, below) => (i < pixels / 2 === below ? 0 : 1) * Math.random();
  return { x: y.map((half) => Array.from({ length: pixels }, (_, i) => ink(i, half === 1))), y };
};

for (let step = 1; step <= 100; step++) {
  const { loss } = await session.step(makeBatch(32));
  if (step % 20 === 0) console.log(`step ${step}: loss ${loss.toFixed(4)}`);
}
if (stateFile) await saveState(session, stateFile); // Python's TrainingSession loads it too
const { output } = await session.infer({ digits: makeBatch(2).x });
console.log("scores:", [...output].map((score) => score.toFixed(1)).join(" "));
