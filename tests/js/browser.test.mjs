import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { agree } from "./agreement.mjs";
import { Browser, expected, serve } from "./tools.mjs";

let server;
let browser;
before(async () => {
  server = await serve();
  browser = await Browser.start(process.env.ONNXTAPE_CHROMIUM);
});
after(async () => {
  await browser.close();
  await server.close();
});

test("Chromium trains, resumes and infers as Python does", async () => {
  const page = await browser.open(`${server.url}/tests/js/blank.html`);
  const found = await page.run(`(async () => {
    const ort = await import("/js/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    const onnxtape = await import("/js/onnxtape.js");
    const { train } = await import("/tests/js/training.mjs");
    const expected = await (await fetch("/fixture/training.json")).json();
    return train(ort, onnxtape, "/fixture/training", expected);
  })()`);
  agree(found, expected("training"));
});

test("the example's page learns a digit that is drawn on it", async () => {
  const from = encodeURIComponent("/fixture/page/");
  const page = await browser.open(`${server.url}/examples/browser/?from=${from}`);
  const onPage = (body) =>
    page.run(`import("/examples/browser/page.js").then(async (page) => {
      const text = (id) => document.getElementById(id).textContent;
      ${body}
    })`);
  await onPage("await page.ready");

  // A hook that stands for 5 from now on: with the mouse, then as the label's button does.
  const [left, top] = await onPage(
    `const box = document.getElementById("pad").getBoundingClientRect(); return [box.left, box.top]`,
  );
  const hook = [[70, 60], [70, 230], [210, 230]];
  await page.drag(hook.map(([x, y]) => [left + x, top + y]));
  const before = await onPage(`
    await page.guess();
    const [values] = await page.probabilities([page.pad.pixels()]);
    return { answer: text("answer"), five: values[5], empty: page.pad.isEmpty };
  `);
  assert.equal(before.empty, false);
  assert.notEqual(before.answer, "5");

  const after = await onPage(`
    document.querySelectorAll("#guesses button")[5].click();
    while (!page.lesson.length) await new Promise(requestAnimationFrame);
    const empty = page.pad.isEmpty;
    await page.train(100);
    page.pad.stroke(${JSON.stringify(hook)});
    await page.guess();
    const [values] = await page.probabilities([page.pad.pixels()]);
    if (!page.losses.length) throw new Error(text("status"));
    const mean = (some) => some.reduce((sum, loss) => sum + loss) / some.length;
    return {
      empty, answer: text("answer"), five: values[5], steps: text("steps"), right: text("right"),
      losses: [mean(page.losses.slice(0, 10)), mean(page.losses.slice(-10))],
      status: text("status"), line: document.querySelector("#chart .mean").getAttribute("d").length,
    };
  `);
  assert.equal(after.empty, true);
  assert.equal(after.answer, "5");
  assert.ok(after.five > 0.5 && after.five > before.five, `${before.five} to ${after.five}`);
  assert.ok(after.losses[1] < after.losses[0] / 2, `${after.losses}`);
  assert.deepEqual([after.steps, after.right], ["100", "1 of 1"]);
  assert.equal(after.status, "Trained 100 steps.");
  assert.ok(after.line > 500);

  // What was learned is kept, forgotten by starting over, and recalled.
  const recalled = await onPage(`
    await page.keep();
    const five = async () => (await page.probabilities([page.pad.pixels()]))[0][5];
    const shown = async (id, word) => {
      document.getElementById(id).click();
      while (!text("status").includes(word)) await new Promise(requestAnimationFrame);
      return five();
    };
    return [await shown("reset", "beginning"), await shown("recall", "Recalled")];
  `);
  // The first drawing came from the mouse, and differs from the second by some pixels.
  assert.ok(Math.abs(recalled[0] - before.five) < 0.02, `${recalled[0]}, not ${before.five}`);
  assert.equal(recalled[1], after.five);

  const refused = await onPage(`await page.restore(new Uint8Array(9)); return text("status");`);
  assert.match(refused, /is not a state file/);
});
