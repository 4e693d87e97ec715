/** The page: what is drawn and labelled becomes batches for the training step of an artifact. */

import * as ort from "../../js/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

import { TrainingSession } from "../../js/onnxtape.js";
import { drawLosses } from "./chart.js";
import { Pad, show } from "./drawing.js";

// Steps as small as these gain nothing from threads, which only some servers allow.
ort.env.wasm.numThreads = 1;

const KEPT = "onnxtape-digits";
const HALF_BATCH = 16;
const $ = (id) => document.getElementById(id);

const lesson = []; // {pixels, label}
const losses = [];
let known; // some digits of the data set that the model comes from: {images, labels}
let session;
let initial;
const pad = new Pad($("pad"), () => guess());

// The model ---------------------------------------------------------------------------------------

/** The probability of each digit, for each of some pictures. */
async function probabilities(pictures) {
  const digits = Float32Array.from(pictures.flatMap((pixels) => [...pixels]));
  const { output } = await session.infer({ digits });
  return pictures.map((_, i) => {
    const scores = output.slice(10 * i, 10 * i + 10);
    const exponentials = scores.map((score) => Math.exp(score - Math.max(...scores)));
    const sum = exponentials.reduce((a, b) => a + b);
    return [...exponentials].map((value) => value / sum);
  });
}

const likeliest = (values) => values.indexOf(Math.max(...values));

/** Half of the batch is drawn here, moved a little; the other half the model has met before. */
function makeBatch() {
  const any = (count) => Math.floor(Math.random() * count);
  const x = [];
  const y = [];
  for (let i = 0; i < HALF_BATCH; i++) {
    const { pixels, label } = lesson[any(lesson.length)];
    x.push(...moved(pixels, any(3) - 1, any(3) - 1));
    y.push(label);
    const old = any(known.labels.length);
    x.push(...known.images[old].map((ink) => ink / 16));
    y.push(known.labels[old]);
  }
  return { x: Float32Array.from(x), y };
}

function moved(pixels, right, down) {
  return pixels.map((_, i) => {
    const [x, y] = [(i % 8) - right, Math.floor(i / 8) - down];
    return x < 0 || x > 7 || y < 0 || y > 7 ? 0 : pixels[8 * y + x];
  });
}

async function train(steps = 100) {
  if (!lesson.length) return;
  busy(true);
  try {
    await session.setState("adam/learning_rate", Number($("rate").value));
    const start = performance.now();
    for (let i = 1; i <= steps; i++) {
      const { loss } = await session.step(makeBatch());
      losses.push(loss);
      if (i % 10 === 0 || i === steps) {
        $("speed").textContent = ((performance.now() - start) / i).toFixed(1);
        await review();
        await new Promise(requestAnimationFrame);
      }
    }
    say(`Trained ${steps} steps.`);
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

// What one sees -----------------------------------------------------------------------------------

/** Show what the model thinks of the drawing. */
async function guess() {
  const drawn = !pad.isEmpty;
  document.body.classList.toggle("drawn", drawn);
  const pixels = pad.pixels();
  show($("seen"), pixels);
  const [values] = drawn && session ? await probabilities([pixels]) : [null];
  const best = values && likeliest(values);
  $("answer").textContent = best ?? "–";
  $("sureness").textContent = values ? sureness(values[best]) : "nothing drawn yet";
  [...$("guesses").children].forEach((item, digit) => {
    const button = item.firstElementChild;
    button.disabled = !drawn;
    button.classList.toggle("best", digit === best);
    button.querySelector("b").style.width = `${100 * (values?.[digit] ?? 0)}%`;
    button.querySelector("small").textContent = values ? `${(100 * values[digit]).toFixed(1)}%` : "";
  });
}

function sureness(probability) {
  const word = probability > 0.95 ? "sure" : probability > 0.7 ? "fairly sure" : "not sure";
  return `${word}, ${Math.round(100 * probability)}%`;
}

/** Show how the model does, after it may have changed. */
async function review() {
  drawLosses($("chart"), losses);
  $("steps").textContent = losses.length;
  $("loss").textContent = losses.length ? losses.at(-1).toFixed(3) : "–";
  const answers = lesson.length ? await probabilities(lesson.map(({ pixels }) => pixels)) : [];
  const right = answers.map((values, i) => likeliest(values) === lesson[i].label);
  $("right").textContent = lesson.length ? `${right.filter(Boolean).length} of ${right.length}` : "–";
  [...$("lesson").children].forEach((item, i) => {
    item.firstElementChild.classList.toggle("wrong", !right[i]);
  });
  await guess();
}

async function label(digit) {
  if (pad.isEmpty) return;
  lesson.push({ pixels: pad.pixels(), label: digit });
  pad.clear();
  say(`Added a ${digit}. Draw another one, or train.`);
  await showLesson();
}

async function showLesson() {
  $("lesson").replaceChildren(
    ...lesson.map((one) => {
      const button = document.createElement("button");
      const picture = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
      show(picture, one.pixels);
      button.type = "button";
      button.title = "Click to take it out again";
      button.append(picture, String(one.label));
      button.addEventListener("click", () => {
        lesson.splice(lesson.indexOf(one), 1);
        showLesson();
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  $("empty").hidden = lesson.length > 0;
  busy(false);
  await review();
}

function busy(isBusy) {
  $("train").disabled = isBusy || !session || !lesson.length;
  $("train").textContent = isBusy ? "Training…" : "Train 100 steps";
  for (const id of ["keep", "download", "reset"]) $(id).disabled = isBusy || !session;
  $("recall").disabled = isBusy || localStorage.getItem(KEPT) === null;
}

function say(text, isWrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", isWrong);
}

// What was learned is kept ------------------------------------------------------------------------

const toText = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function keep() {
  localStorage.setItem(KEPT, toText(await session.save()));
  busy(false);
  say("Kept in this browser.");
}

async function restore(bytes, told) {
  try {
    await session.restore(bytes);
    losses.length = 0;
    await review();
    say(told);
  } catch (error) {
    say(error.message, true);
  }
}

async function download() {
  const file = URL.createObjectURL(new Blob([await session.save()]));
  const link = Object.assign(document.createElement("a"), { href: file, download: "digits.safetensors" });
  link.click();
  URL.revokeObjectURL(file);
}

$("clear").addEventListener("click", () => pad.clear());
$("train").addEventListener("click", () => train());
$("keep").addEventListener("click", keep);
$("recall").addEventListener("click", () => restore(toBytes(localStorage.getItem(KEPT)), "Recalled."));
$("download").addEventListener("click", download);
$("upload").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) await restore(new Uint8Array(await file.arrayBuffer()), `Restored ${file.name}.`);
  event.target.value = "";
});
$("reset").addEventListener("click", () => restore(initial, "Back at the beginning."));
$("guesses").append(
  ...Array.from({ length: 10 }, (_, digit) => {
    const item = document.createElement("li");
    item.innerHTML = `<button type="button" disabled>${digit}<i><b></b></i><small></small></button>`;
    item.firstElementChild.addEventListener("click", () => label(digit));
    return item;
  }),
);

async function start() {
  const folder = new URL(new URLSearchParams(location.search).get("from") ?? "generated/", location.href);
  const response = await fetch(new URL("digits.json", folder));
  if (!response.ok) throw new Error("First run: python examples/browser/make_artifact.py");
  known = await response.json();
  session = await TrainingSession.load(ort, new URL("artifact/", folder));
  initial = await session.save();
  await showLesson();
  say("Ready.");
}

/** Settled once the page is ready; for scripts that drive it. */
export const ready = start().catch((error) => {
  say(error.message, true);
  throw error;
});
export { guess, keep, label, lesson, losses, pad, probabilities, restore, train };
