/** What the tests of JavaScript share: the fixture, ONNX Runtime, a file server, a browser. */

import { spawn } from "node:child_process";
import { createReadStream, readFileSync } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** The folder that test_javascript.py fills: artifacts, and what Python computed with them. */
export const FIXTURE = process.env.ONNXTAPE_JS_FIXTURE;
export const expected = (name) => JSON.parse(readFileSync(join(FIXTURE, `${name}.json`), "utf8"));

const require = createRequire(new URL("../../js/", import.meta.url));
export const loadOrt = (name) => require(name);

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Serve the repository, and the fixture under /fixture/, from this machine to itself. */
export async function serve() {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const isFixture = path.startsWith(`${sep}fixture${sep}`);
    const asked = isFixture ? join(FIXTURE, path.slice("/fixture/".length)) : join(ROOT, path);
    const file = asked.endsWith(sep) ? join(asked, "index.html") : asked;
    try {
      if (!(await stat(file)).isFile()) throw new Error("no file");
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}

/** A headless Chromium, driven over the pipe that it opens for its DevTools protocol. */
export class Browser {
  #child;
  #profile;
  #sent = 0;
  #waiting = new Map();
  #log = "";

  static async start(executable) {
    const browser = new Browser();
    browser.#profile = await mkdtemp(join(tmpdir(), "onnxtape-chromium-"));
    browser.#child = spawn(
      executable,
      [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", "--disable-component-update",
        "--hide-scrollbars", "--remote-debugging-pipe", `--user-data-dir=${browser.#profile}`,
        "about:blank",
      ],
      { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] },
    );
    const [, , errors, , answers] = browser.#child.stdio;
    errors.on("data", (text) => (browser.#log += text));
    let rest = "";
    answers.setEncoding("utf8").on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      messages.forEach((message) => browser.#receive(JSON.parse(message)));
    });
    browser.#child.on("exit", () => {
      for (const { reject } of browser.#waiting.values()) {
        reject(new Error(`Chromium ended.\n${browser.#log}`));
      }
    });
    return browser;
  }

  /** Open a page; `run(expression)` gives the value of an expression, awaited, in it. */
  async open(url, { width = 1280, height = 800 } = {}) {
    const { targetId } = await this.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.#send("Target.attachToTarget", { targetId, flatten: true });
    const call = (method, parameters) => this.#send(method, parameters, sessionId);
    await call("Emulation.setDeviceMetricsOverride", {
      width, height, deviceScaleFactor: 1, mobile: false,
    });
    const run = async (expression) => {
      const { result, exceptionDetails } = await call("Runtime.evaluate", {
        expression, awaitPromise: true, returnByValue: true,
      });
      if (exceptionDetails) {
        throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      }
      return result.value;
    };
    await call("Page.navigate", { url });
    const until = Date.now() + 30_000;
    while (!(await run(`location.href !== "about:blank" && document.readyState === "complete"`))) {
      if (Date.now() > until) throw new Error(`${url} does not load.\n${this.#log}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return {
      run,
      /** A picture of the page, as PNG. */
      screenshot: async () => {
        const { data } = await call("Page.captureScreenshot", { format: "png" });
        return Buffer.from(data, "base64");
      },
      /** A gesture of the mouse through points of the page. */
      drag: async (points) => {
        const at = (type, [x, y]) =>
          call("Input.dispatchMouseEvent", { type, x, y, button: "left", buttons: 1, clickCount: 1 });
        await at("mousePressed", points[0]);
        for (const point of points) await at("mouseMoved", point);
        await at("mouseReleased", points.at(-1));
      },
    };
  }

  async close() {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#send("Browser.close").catch(() => {});
    await ended;
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #send(method, params = {}, sessionId = undefined) {
    const id = ++this.#sent;
    this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #receive({ id, result, error }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }
}
