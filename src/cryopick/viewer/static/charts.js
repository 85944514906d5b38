// The two charts of the run: score against local power with limits that can be dragged, and the histogram of scores.

import { COLOURS, colourOf } from "./model.js";

const POWER = [-4, 6], BINS = 100, ROWS = 128;

function prepare(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1), box = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  const g = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  g.scale(ratio, ratio);
  g.font = "11px system-ui, sans-serif";
  return { g, w: box.width, h: box.height, fore: style.getPropertyValue("--fore"), soft: style.getPropertyValue("--soft"), line: style.getPropertyValue("--line") };
}

const short = (value) => Number(value.toPrecision(3)).toString();

// s: {curve, range, threshold, low, high, candidates, states, hovered}
export function drawScatter(canvas, s) {
  const { g, w, h, fore, soft } = prepare(canvas), left = 46, bottom = h - 28, right = w - 6, top = 6;
  const [lo, hi] = s.range, x = (score) => left + (score - lo) / Math.max(hi - lo, 1e-9) * (right - left);
  const y = (power) => bottom - (Math.min(POWER[1], Math.max(POWER[0], Math.log2(power))) - POWER[0]) / (POWER[1] - POWER[0]) * (bottom - top);
  if (s.curve) {
    const counts = s.curve.histogram, most = Math.max(1, ...counts), dx = (right - left) / BINS, dy = (bottom - top) / ROWS;
    g.fillStyle = soft;
    for (let a = 0; a < BINS; a++) for (let b = 0; b < ROWS; b++) {
      const n = counts[a * ROWS + b];
      if (n) { g.globalAlpha = 0.12 + 0.6 * Math.log(1 + n) / Math.log(1 + most); g.fillRect(left + a * dx, bottom - (b + 1) * dy, dx + 0.4, dy + 0.4); }
    }
    g.globalAlpha = 1;
  }
  const c = s.candidates;
  if (c) for (let k = 0; k < c.n; k++) if (!c.reason[k] && c.power[k] > 0) {
    g.fillStyle = s.states[k] === 1 ? COLOURS[Math.max(3, colourOf(c.score[k], lo, hi))] : soft;
    g.fillRect(x(c.score[k]) - 1.2, y(c.power[k]) - 1.2, 2.4, 2.4);
  }
  g.strokeStyle = fore; g.lineWidth = 1.5;
  g.beginPath(); g.moveTo(x(s.threshold), top); g.lineTo(x(s.threshold), bottom); g.stroke();
  g.setLineDash([4, 3]);
  for (const limit of [s.low, s.high]) if (limit > 0 && Number.isFinite(limit)) { g.beginPath(); g.moveTo(left, y(limit)); g.lineTo(right, y(limit)); g.stroke(); }
  g.setLineDash([]);
  g.fillStyle = soft; g.textAlign = "center"; g.fillText(`score, ${short(lo)} to ${short(hi)}`, (left + right) / 2, h - 14 + 9);
  g.textAlign = "right"; for (const p of [0.25, 1, 4, 16]) g.fillText(String(p), left - 3, y(p) + 4);
  g.save(); g.translate(9, (top + bottom) / 2); g.rotate(-Math.PI / 2); g.textAlign = "center"; g.fillText("local power (log)", 0, 0); g.restore();
  if (s.hovered?.power > 0) { g.strokeStyle = "#ff5ccf"; g.lineWidth = 2; g.strokeRect(x(s.hovered.score) - 4, y(s.hovered.power) - 4, 8, 8); }
  return { x, y, scoreAt: (px) => lo + (px - left) / (right - left) * (hi - lo), powerAt: (py) => 2 ** (POWER[0] + (bottom - py) / (bottom - top) * (POWER[1] - POWER[0])) };
}

// Counts of open candidates by score, on a logarithmic scale, so that few particles beside much noise can be read, and
// over them the shares that are expected to be right (solid) and found (dashed) at each threshold, as the report has them.
export function drawHistogram(canvas, s) {
  const hasShares = s.curve && Number.isFinite(s.curve.recall[0]);
  const { g, w, h, fore, soft } = prepare(canvas), left = 44, bottom = h - 32, top = 20, right = w - (hasShares ? 42 : 8);
  if (!s.curve) return;
  const [lo, hi] = s.range, counts = new Float64Array(BINS), kept = s.curve.kept, t = s.curve.threshold;
  for (let b = 0; b < BINS; b++) counts[b] = kept[b * 10] - (b < BINS - 1 ? kept[(b + 1) * 10] : 0);
  const most = Math.max(1, ...counts), y = (n) => bottom - Math.log(1 + n) / Math.log(1 + most) * (bottom - top), dx = (right - left) / BINS;
  for (let b = 0; b < BINS; b++) {
    if (!counts[b]) continue;
    g.fillStyle = t[b * 10] >= s.threshold ? COLOURS[Math.max(4, colourOf(t[b * 10], lo, hi))] : soft;
    g.fillRect(left + b * dx, y(counts[b]), Math.max(1, dx - 0.5), bottom - y(counts[b]));
  }
  const at = (score) => left + (score - lo) / Math.max(hi - lo, 1e-9) * (right - left), x = at(s.threshold);
  if (hasShares) {
    const style = getComputedStyle(document.documentElement), shares = [[s.curve.precision, style.getPropertyValue("--accent"), []], [s.curve.recall, style.getPropertyValue("--bad"), [5, 3]]];
    for (const [values, colour, dash] of shares) {
      g.strokeStyle = colour; g.lineWidth = 1.8; g.setLineDash(dash); g.beginPath();
      for (let k = 0, isBegun = false; k < values.length; k += 5) if (Number.isFinite(values[k])) { g[isBegun ? "lineTo" : "moveTo"](at(t[k]), bottom - values[k] * (bottom - top)); isBegun = true; }
      g.stroke();
    }
    g.setLineDash([]);
    g.textAlign = "left"; g.fillStyle = shares[0][1]; g.fillText("— right", left, 12); g.fillStyle = shares[1][1]; g.fillText("-- found", left + 56, 12);
    g.fillStyle = soft; for (const share of [0, 0.5, 1]) g.fillText(`${100 * share} %`, right + 3, bottom - share * (bottom - top) + 4);
  }
  g.strokeStyle = fore; g.lineWidth = 2; g.beginPath(); g.moveTo(x, 2); g.lineTo(x, bottom); g.stroke();
  g.fillStyle = soft; g.textAlign = "right";
  const decades = [1, 10, 100, 1000, 1e4, 1e5, 1e6].filter((n) => n <= most), every = 1 + Math.floor(decades.length / 5);
  for (const n of decades.filter((_, k) => k % every === 0)) g.fillText(n >= 1000 ? `${n / 1000}k` : String(n), left - 3, y(n) + 4);
  g.textAlign = "center"; g.fillText(hasShares ? "score = threshold" : "score", (left + right) / 2, h - 5);
  g.textAlign = "left"; g.fillText(short(lo), left, h - 18); g.textAlign = "right"; g.fillText(short(hi), right, h - 18);
  g.save(); g.translate(10, (top + bottom) / 2); g.rotate(-Math.PI / 2); g.textAlign = "center"; g.fillText("candidates (log)", 0, 0); g.restore();
}

// Lines of learning: {name: [[x, y], ...]}.
export function drawLines(canvas, lines, label) {
  const { g, w, h, fore, soft } = prepare(canvas), left = 40, bottom = h - 22, top = 8, right = w - 8;
  const every = Object.values(lines).flat().filter(([, v]) => Number.isFinite(v));
  if (!every.length) return;
  const xs = every.map((p) => p[0]), ys = every.map((p) => p[1]), x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1), y0 = Math.min(...ys), y1 = Math.max(...ys, y0 + 1e-6);
  const x = (v) => left + (v - x0) / (x1 - x0) * (right - left), y = (v) => bottom - (v - y0) / (y1 - y0) * (bottom - top);
  Object.entries(lines).forEach(([name, points], k) => {
    g.strokeStyle = g.fillStyle = ["#3b8eea", "#d98a2b"][k % 2]; g.lineWidth = 2; g.setLineDash(k % 2 ? [5, 3] : []);
    g.beginPath(); points.forEach(([a, b], n) => g[n ? "lineTo" : "moveTo"](x(a), y(b))); g.stroke(); g.setLineDash([]);
    for (const [a, b] of points) g.fillRect(x(a) - 2, y(b) - 2, 4, 4);
    g.fillText(name, left + 6 + 90 * k, top + 8);
  });
  g.fillStyle = fore; g.textAlign = "right"; g.fillText(short(y1), left - 4, top + 8); g.fillText(short(y0), left - 4, bottom);
  g.fillStyle = soft; g.textAlign = "center"; g.fillText(label, (left + right) / 2, h - 6);
}
