/** The loss of each step, and its mean over some. */

const [LEFT, TOP, RIGHT, BOTTOM] = [34, 8, 336, 230];
const WINDOW = 15;

export function drawLosses(svg, losses) {
  const most = Math.max(0.5, ...losses) * 1.05;
  const x = (i) => LEFT + ((RIGHT - LEFT) * i) / Math.max(1, losses.length - 1);
  const y = (loss) => BOTTOM - ((BOTTOM - TOP) * loss) / most;
  const line = (values) => values.map((loss, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
  const mean = losses.map((_, i) => {
    const some = losses.slice(Math.max(0, i - WINDOW + 1), i + 1);
    return some.reduce((sum, loss) => sum + loss, 0) / some.length;
  });
  const tick = [0.1, 0.25, 0.5, 1, 2, 5, 10].find((step) => most / step <= 4.5) ?? most / 4;
  const ticks = [];
  for (let loss = 0; loss <= most; loss += tick) ticks.push(loss);
  svg.innerHTML = [
    ...ticks.map((loss) => `<line class="grid" x1="${LEFT}" x2="${RIGHT}" y1="${y(loss)}" y2="${y(loss)}"/>`),
    ...ticks.map((loss) => `<text x="${LEFT - 6}" y="${y(loss) + 4}" text-anchor="end">${Number(loss.toFixed(2))}</text>`),
    `<text x="${LEFT}" y="${BOTTOM + 16}">loss of each step, and the mean of ${WINDOW}</text>`,
    losses.length ? `<text x="${RIGHT}" y="${BOTTOM + 16}" text-anchor="end">step ${losses.length}</text>` : "",
    `<path class="each" d="${line(losses)}"/>`,
    `<path class="mean" d="${line(mean)}"/>`,
  ].join("");
}
