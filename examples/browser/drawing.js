/** The pad that one draws on, and the 8 by 8 pixels that the model sees of it. */

const SIDE = 8;
const FINE = 32;
const STROKE = 24;

/** Let `canvas` be drawn on; `changed` is called after each piece of a stroke. */
export class Pad {
  #context;
  #changed;
  #isEmpty = true;

  constructor(canvas, changed) {
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.#context, { lineWidth: STROKE, lineCap: "round", lineJoin: "round", strokeStyle: "#1d2433" });
    this.#changed = changed;
    let last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = at(event);
      this.stroke([last, last]);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const next = at(event);
      this.stroke([last, next]);
      last = next;
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (last = null));
    }
  }

  get isEmpty() {
    return this.#isEmpty;
  }

  /** Draw a line through points [x, y] of the canvas. */
  stroke(points) {
    const context = this.#context;
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points) context.lineTo(...point);
    context.stroke();
    this.#isEmpty = false;
    this.#changed();
  }

  clear() {
    const { canvas } = this.#context;
    this.#context.clearRect(0, 0, canvas.width, canvas.height);
    this.#isEmpty = true;
    this.#changed();
  }

  /**
   * The drawing as the model's data set has digits: cut out, made as high as the picture, put in
   * its middle, and of each of 8 by 8 squares how much of it is ink, from 0 to 1.
   */
  pixels() {
    const { canvas } = this.#context;
    const { data } = this.#context.getImageData(0, 0, canvas.width, canvas.height);
    let [left, top, right, bottom] = [canvas.width, canvas.height, -1, -1];
    for (let y = 0; y < canvas.height; y++) {
      for (let x = 0; x < canvas.width; x++) {
        if (data[4 * (y * canvas.width + x) + 3] < 128) continue;
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
    if (right < 0) return new Float32Array(SIDE * SIDE);
    const [width, height] = [right - left + 1, bottom - top + 1];
    const scale = FINE / Math.max(width, height);
    const small = new OffscreenCanvas(FINE, FINE).getContext("2d", { willReadFrequently: true });
    small.imageSmoothingQuality = "high";
    small.drawImage(
      canvas, left, top, width, height,
      (FINE - width * scale) / 2, (FINE - height * scale) / 2, width * scale, height * scale,
    );
    const ink = small.getImageData(0, 0, FINE, FINE).data;
    const pixels = new Float32Array(SIDE * SIDE);
    const block = FINE / SIDE;
    for (let y = 0; y < FINE; y++) {
      for (let x = 0; x < FINE; x++) {
        const square = Math.floor(y / block) * SIDE + Math.floor(x / block);
        pixels[square] += ink[4 * (y * FINE + x) + 3] / 255 / block ** 2;
      }
    }
    return pixels;
  }
}

/** Show 8 by 8 pixels, dark ink on light paper. */
export function show(canvas, pixels) {
  const image = new ImageData(SIDE, SIDE);
  pixels.forEach((ink, i) => {
    image.data.set([255 - 226 * ink, 255 - 219 * ink, 255 - 204 * ink, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}
