import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";

import * as onnxtape from "../../js/onnxtape.js";
import { loadState, saveState } from "../../js/node.js";
import { agree } from "./agreement.mjs";
import { expected, FIXTURE, loadOrt, serve } from "./tools.mjs";
import { train } from "./training.mjs";

const { ArtifactError, CheckpointError, InputError, TrainingSession } = onnxtape;
const folder = join(FIXTURE, "training");
const truth = expected("training");
const scratch = await mkdtemp(join(tmpdir(), "onnxtape-js-"));
after(() => rm(scratch, { recursive: true }));

const filesOf = async (path) => {
  const names = await readdir(path);
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(path, name))])),
  );
};

for (const name of ["onnxruntime-node", "onnxruntime-web"]) {
  describe(name, () => {
    const ort = loadOrt(name);

    test("trains, resumes and infers as Python does", async () => {
      agree(await train(ort, onnxtape, folder, truth), truth);
    });

    test("goes on from the state that Python saved", async () => {
      const session = await TrainingSession.load(ort, folder);
      await session.restore(await readFile(join(FIXTURE, "middle.safetensors")));
      const { loss } = await session.step(truth.batches[10]);
      assert.ok(Math.abs(loss - truth.losses[10]) < 1e-5);
      await session.release();
    });

    test("every dtype goes in, through the state, and out", async () => {
      const session = await TrainingSession.load(ort, join(FIXTURE, "dtypes"));
      const { inputs, found } = expected("dtypes");
      await session.step(inputs);
      const results = await session.step(inputs);
      const plainly = (value) =>
        typeof value === "object" ? [...value].map(String) : String(value);
      const named = Object.fromEntries(Object.entries(results).map(([k, v]) => [k, plainly(v)]));
      assert.deepEqual(named, found);
      assert.deepEqual(results.same_float32.shape, [2, 1]);
      assert.equal(results.first_bool, true);
      assert.equal(typeof results.first_int64, "bigint");
      assert.ok(results.was_uint64 instanceof BigUint64Array);
      const saved = await session.save();
      assert.deepEqual(saved, new Uint8Array(await readFile(join(FIXTURE, "dtypes.safetensors"))));
      await session.restore(saved);
      assert.deepEqual(await session.step(inputs), results);
    });

    test("a mistake is told, and the state stays as it was", async () => {
      const session = await TrainingSession.load(ort, folder);
      const [{ x, y }] = truth.batches;
      const before = await session.save();
      const cases = [
        [{ x }, /'y' missing\. The step takes x: float32\[batch, 8\], y: int64\[batch\]/],
        [{ x, y, z: 1 }, /'z' unknown/],
        [{ x, y: y.slice(1) }, /'y' has 15 numbers; the step takes \[batch\], here with batch 16/],
        [{ x, y: { data: y.slice(1), dims: [15] } }, /disagree in the dimension 'batch': 'y' has 15/],
        [{ x: x.map((row) => row.slice(1)), y }, /'x' has shape \[16, 7\].*takes \[batch, 8\]/],
        [{ x: x.flat().slice(1), y }, /'x' has 127 numbers; the step takes \[batch, 8\]\./],
        [{ x, y: y.map((value) => value + 0.5) }, /'y' holds .*\.5; int64 is needed/],
        [{ x, y: Float32Array.from(y) }, /'y' holds a Float32Array; int64 is needed/],
        [{ x: [[1, 2], [3]], y }, /'x' has rows of different lengths/],
        [{ x: "text", y }, /'x' holds "text"; float32 is needed/],
      ];
      for (const [batch, message] of cases) {
        await assert.rejects(session.step(batch), (error) => {
          assert.ok(error instanceof InputError, error);
          assert.match(error.message, message);
          return true;
        });
      }
      await assert.rejects(session.step({ x, y: y.map(() => 99) }), (error) => {
        assert.ok(error instanceof onnxtape.ExecutionError, error);
        assert.match(error.message, /^The training step failed: .*target/);
        assert.ok(!error.message.includes("Non-zero status code"));
        return true;
      });
      assert.deepEqual(await session.save(), before);
      const { loss } = await session.step({ x, y });
      assert.ok(Math.abs(loss - truth.losses[0]) < 1e-5);
      await session.release();
    });

    test("a batch may be written in many ways", async () => {
      const losses = [];
      const [{ x, y }] = truth.batches;
      const flat = Float32Array.from(x.flat());
      for (const batch of [
        { x, y },
        { x: flat, y: BigInt64Array.from(y, BigInt) },
        { x: x.flat(), y: Int32Array.from(y) },
        { x: { data: flat, shape: [16, 8] }, y: y.map(BigInt) },
        { x: new ort.Tensor("float32", flat, [16, 8]), y: Uint8Array.from(y) },
        { x: x.map((row) => Float32Array.from(row)), y },
        { x: Float64Array.from(flat), y },
      ]) {
        const session = await TrainingSession.load(ort, folder);
        losses.push((await session.step(batch)).loss);
        await session.release();
      }
      assert.deepEqual(losses, losses.map(() => losses[0]));
    });

    test("batches to evaluate come one at a time, in a list, or as they are made", async () => {
      const session = await TrainingSession.load(ort, folder);
      const [first, second] = truth.batches;
      const alone = await session.evaluate(first);
      assert.deepEqual(await session.evaluate([first]), alone);
      async function* made() {
        yield first;
        yield second;
      }
      const both = await session.evaluate(made());
      const accuracies = await Promise.all(
        [first, second].map(async (batch) => (await session.evaluate(batch)).accuracy),
      );
      assert.ok(Math.abs(both.accuracy - (accuracies[0] + accuracies[1]) / 2) < 1e-6);
      assert.equal(both.same, both.accuracy);
      assert.deepEqual(both.logits.shape, [32, 4]);
      assert.ok(both.classes instanceof Int32Array);
      const cases = [
        [[], /There was no batch to evaluate/],
        [{ x: first.x }, /not have the evaluation step's inputs: 'y' missing\. The evaluation step/],
        [undefined, /'x' missing, 'y' missing/],
        [[first, { ...first, z: 1 }], /'z' unknown/],
      ];
      for (const [batches, message] of cases) {
        await assert.rejects(session.evaluate(batches), (error) => {
          assert.ok(error instanceof InputError, error);
          assert.match(error.message, message);
          return true;
        });
      }
      assert.deepEqual(await session.evaluate(first), alone);
      await session.release();
    });

    test("one entry of the state is set", async () => {
      const session = await TrainingSession.load(ort, folder);
      await session.setState("adam/learning_rate", 0);
      const name = "sequential/dense/kernel";
      const old = (await session.state())[name];
      assert.deepEqual([old.dtype, old.shape, old.role], ["float32", [8, 16], "parameter"]);
      await session.step(truth.batches[0]);
      assert.deepEqual((await session.state())[name].data, old.data);
      await session.setState(name, { data: new Float32Array(128), shape: [8, 16] });
      assert.ok((await session.state())[name].data.every((value) => value === 0));
      await assert.rejects(session.setState(name, [1, 2]), /has shape \[8, 16\], and the value 2 num/);
      await assert.rejects(session.setState("rate", 1), /no state entry 'rate'.*adam\/learning_rate/);
      await session.release();
    });

    test("steps that were not awaited run one after the other", async () => {
      const session = await TrainingSession.load(ort, folder);
      const running = truth.batches.map((batch) => session.step(batch));
      const late = session.save();
      const losses = (await Promise.all(running)).map(({ loss }) => loss);
      assert.ok(Math.abs(losses.at(-1) - truth.losses.at(-1)) < 1e-3);
      assert.deepEqual(await late, await session.save());
      await session.release();
    });
  });
}

describe("where an artifact comes from", () => {
  const ort = loadOrt("onnxruntime-node");
  let server;
  before(async () => (server = await serve()));
  after(() => server.close());

  test("a folder, its URL, a server, an object of files", async () => {
    const losses = [];
    const sources = [
      folder,
      pathToFileURL(folder),
      `${server.url}/fixture/training`,
      new URL(`${server.url}/fixture/training/`),
      await filesOf(folder),
    ];
    for (const source of sources) {
      const session = await TrainingSession.load(ort, source);
      losses.push((await session.step(truth.batches[0])).loss);
      await session.release();
    }
    assert.deepEqual(losses, losses.map(() => losses[0]));
  });

  test("nothing there", async () => {
    await assert.rejects(TrainingSession.load(ort, "no/folder"), /manifest\.json cannot be read/);
    await assert.rejects(TrainingSession.load(ort, `${server.url}/none`), /HTTP 404/);
    await assert.rejects(TrainingSession.load(ort, {}), /no "manifest\.json" with bytes/);
    await assert.rejects(TrainingSession.load(ort, 7), /a folder \(Node\), a URL, or an object/);
    await assert.rejects(TrainingSession.load({}, folder), /is the module onnxruntime-node/);
  });

  const changes = [
    ["a newer format", { format_version: 2 }, /format_version 2, and this onnxtape reads up to 1/],
    ["another format", { format: "else" }, /does not say "format": "onnxtape-artifact"/],
    ["bfloat16", { outputs: [{ name: "loss", dtype: "bfloat16", shape: [] }] }, /no such tensors/],
    ["an unknown dtype", { inputs: [{ name: "x", dtype: "complex64", shape: [] }] }, /'dtype' in item 0/],
    ["other names", { outputs: [] }, /outputs of training\.onnx are .*; the manifest says/],
    [
      "names that collide",
      { inputs: [1, 2].map(() => ({ name: "x", dtype: "float32", shape: [] })) },
      /must all have different names; used more than once: x/,
    ],
    ["a path as a name", { files: { "../x": { size: 1, sha256: "0".repeat(64) } } }, /plain name/],
    ["failures that are no texts", { failures: { node: 7 } }, /"node" in 'failures' must be a text/],
    ["a file that is not listed", { files: {} }, /does not list the file training\.onnx/],
    [
      "another dtype",
      { outputs: ["loss", "accuracy"].map((name) => ({ name, dtype: "float64", shape: [] })) },
      /training\.onnx has 'loss' as float32\[\]; the manifest says float64\[\]/,
    ],
  ];
  for (const [what, change, message] of changes) {
    test(`a manifest with ${what} is refused`, async () => {
      const files = await filesOf(folder);
      const manifest = { ...JSON.parse(files["manifest.json"]), ...change };
      files["manifest.json"] = JSON.stringify(manifest);
      await assert.rejects(TrainingSession.load(ort, files), (error) => {
        assert.ok(error instanceof ArtifactError, error);
        assert.match(error.message, message);
        return true;
      });
    });
  }

  test("files that were changed, cut short, or lost", async () => {
    const path = join(scratch, "damaged");
    await cp(folder, path, { recursive: true });
    const file = join(path, "state.safetensors");
    const bytes = await readFile(file);
    bytes[bytes.length - 1] ^= 1;
    await writeFile(file, bytes);
    await assert.rejects(TrainingSession.load(ort, path), /state\.safetensors was changed after/);
    await writeFile(file, bytes.subarray(1));
    await assert.rejects(TrainingSession.load(ort, path), /was cut short: it has \d+ bytes/);
    await writeFile(file, Buffer.concat([bytes, bytes]));
    await assert.rejects(TrainingSession.load(ort, path), /has grown/);
    await rm(file);
    await assert.rejects(TrainingSession.load(ort, path), /state\.safetensors cannot be read/);
    await writeFile(join(path, "manifest.json"), "{");
    await assert.rejects(TrainingSession.load(ort, path), /manifest\.json is not valid JSON/);
  });

  test("an evaluation that is not what the manifest says is refused", async () => {
    const files = await filesOf(folder);
    const manifest = JSON.parse(files["manifest.json"]);
    const { evaluation } = manifest;
    const [metric] = evaluation.state.filter(({ role }) => role === "metric");
    const cases = [
      [{ state: [{ ...metric, initial: "a" }] }, /must be a number, "inf" or "-inf", not "a"/],
      [{ state: [metric, metric] }, /state entries of the evaluation must all have different names/],
      [{ state: [{ ...metric, role: "buffer", name: "none" }] }, /'none' .* does not have/],
      [{ accumulated: "loss" }, /'accumulated' in 'evaluation' must be a list/],
      [{ outputs: [] }, /outputs of evaluation\.onnx are .*; the manifest says/],
    ];
    for (const [change, message] of cases) {
      const changed = { ...manifest, evaluation: { ...evaluation, ...change } };
      const attempt = async () => {
        const source = { ...files, "manifest.json": JSON.stringify(changed) };
        await (await TrainingSession.load(ort, source)).evaluate(truth.batches[0]);
      };
      await assert.rejects(attempt, (error) => {
        assert.ok(error instanceof ArtifactError, error);
        assert.match(error.message, message);
        return true;
      });
    }
  });

  test("an artifact without an inference graph, or an evaluation", async () => {
    const session = await TrainingSession.load(ort, join(FIXTURE, "dtypes"));
    await assert.rejects(session.infer({}), /holds no inference graph; export it with one/);
    await assert.rejects(session.evaluate([]), /holds no evaluation step; export it with one/);
  });
});

describe("state in files", () => {
  const ort = loadOrt("onnxruntime-node");

  test("is saved whole, for Python too, and restored", async () => {
    const session = await TrainingSession.load(ort, folder);
    for (const batch of truth.batches) await session.step(batch);
    const file = join(FIXTURE, "from_javascript.safetensors"); // Python reads it afterwards
    await saveState(session, file);
    const { loss } = await session.step(truth.batches[0]);
    await saveState(session, join(scratch, "later.safetensors"));
    await loadState(session, file);
    assert.equal((await session.step(truth.batches[0])).loss, loss);
    await assert.rejects(saveState(session, join(scratch, "none", "x.safetensors")), /ENOENT/);
    assert.ok(!(await readdir(scratch)).some((name) => name.endsWith(".tmp")));
  });

  test("of another model is refused, and nothing replaced", async () => {
    const session = await TrainingSession.load(ort, folder);
    const before = await session.save();
    const other = await readFile(join(FIXTURE, "dtypes.safetensors"));
    await assert.rejects(session.restore(other), (error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, /belongs to another model: missing: .*; not in the model: .*v_/);
      return true;
    });
    const tensors = Object.fromEntries(onnxtape.readSafetensors(before));
    tensors["sequential/dense/bias"] = { dtype: "float64", shape: [1], data: new Float64Array(1) };
    const changed = onnxtape.writeSafetensors(tensors);
    await assert.rejects(
      session.restore(changed),
      /different: sequential\/dense\/bias is float64\[1\], the model has float32\[16\]/,
    );
    assert.deepEqual(await session.save(), before);
  });
});
