// A program that the declarations must let through, and mistakes that they must not. Compiled, not run.
import * as ortNode from "onnxruntime-node";
import * as ortWeb from "onnxruntime-web";
import {
  ArtifactError, CheckpointError, ExecutionError, InputError, OnnxtapeError, TrainingSession,
  readSafetensors, writeSafetensors,
  type Dtype, type Manifest, type Result, type Tensor, type Value,
} from "onnxtape";
import { loadState, saveState } from "onnxtape/node";

const session: TrainingSession = await TrainingSession.load(ortNode, "artifact");
const inBrowser = await TrainingSession.load(ortWeb, new URL("https://example.org/artifact/"), {
  providers: ["wasm", { name: "webgpu" }],
  sessionOptions: { logSeverityLevel: 3 },
});
await TrainingSession.load(ortWeb, { "manifest.json": "{}", "training.onnx": new Uint8Array() });

const values: Value[] = [
  1, 2n, true, [[1, 2], [3, 4]], [new Float32Array(3)], new BigInt64Array(2),
  { data: new Float32Array(6), shape: [2, 3] },
  new ortNode.Tensor("float32", new Float32Array(6), [2, 3]),
];
const results: Record<string, Result> = await session.step({ x: values[0]!, y: [1, 0] });
const loss: Result | undefined = results["loss"];
if (typeof loss === "object") {
  const shape: readonly number[] = loss.shape;
  console.log(shape, loss.length);
}
const { y } = await session.infer({ x: new Float32Array(4) });
const { accuracy } = await session.evaluate({ x: 1 });
await session.evaluate([{ x: 1 }, { x: 2 }]);
async function* batches() { yield { x: 1 }; }
const means: Record<string, Result> = await session.evaluate(batches());
const manifest: Manifest = session.manifest;
const dtypes: Dtype[] = [...session.inputs, ...session.outputs].map((entry) => entry.dtype);
const output: string | null | undefined = manifest.state[0]?.output;
const state = await session.state();
const role: "parameter" | "buffer" | "optimizer" | "metric" | "generator" = state["w"]!.role;
await session.setState("learning_rate", 0.1);
const bytes: Uint8Array = await session.save();
await inBrowser.restore(bytes);
await saveState(session, "state.safetensors");
await loadState(session, "state.safetensors");
const tensors: Map<string, Tensor> = readSafetensors(bytes, "state");
writeSafetensors(Object.fromEntries(tensors), { producer: "test" });
await session.release();
for (const kind of [ArtifactError, CheckpointError, ExecutionError, InputError]) {
  const error: OnnxtapeError = new kind("message");
  console.log(error.message, accuracy, means, y, dtypes, output, role);
}

// @ts-expect-error: sessions are loaded
new TrainingSession();
// @ts-expect-error: a batch is an object
await session.step([1, 2]);
// @ts-expect-error: batches are objects
await session.evaluate([1, 2]);
// @ts-expect-error: text is no value
await session.step({ x: "text" });
// @ts-expect-error: ONNX Runtime comes first
await TrainingSession.load("artifact");
// @ts-expect-error: the manifest is read only
session.manifest.opset = 3;
