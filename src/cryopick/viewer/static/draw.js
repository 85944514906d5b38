// Drawing on the two canvases. Rings are sprites, one per colour and radius, put at whole device pixels; where a ring is
// wider than 80 px, few are to be seen, and each is a real arc at its exact place.

import { COLOURS, colourOf } from "./model.js";

const SPRITE_PX = 80;
const sprites = new Map();

export function drawImage(view, canvas, shown, smooth) {
  const g = canvas.getContext("2d", { alpha: false }), k = view.scale * view.ratio;
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.fillStyle = "#26282a";
  g.fillRect(0, 0, canvas.width, canvas.height);
  const place = (picture, x, y, w, h, alpha = 1) => {
    g.globalAlpha = alpha;
    g.drawImage(picture, (x - view.left) * k, (y - view.top) * k, w * k, h * k);
    g.globalAlpha = 1;
  };
  g.imageSmoothingEnabled = smooth ?? k < 3;
  g.imageSmoothingQuality = "medium";
  for (const one of shown) place(one.picture, one.x, one.y, one.w, one.h, one.alpha);
}

function sprite(style, radius) {
  const key = `${style}/${radius}`;
  let made = sprites.get(key);
  if (!made) {
    const size = 2 * Math.ceil(radius + 3) + 1;
    made = new OffscreenCanvas(size, size);
    const g = made.getContext("2d");
    g.translate(size / 2, size / 2);
    path(g, style, 0, 0, radius);
    if (sprites.size > 800) sprites.clear();
    sprites.set(key, made);
  }
  return made;
}

// Styles: a number 0 to 15 is a kept pick of that colour; the others are never told by colour alone.
const STYLES = {
  below: { colour: "#9aa0a6", width: 1 },
  rejected: { colour: "#ffb000", width: 1.5, dash: [4, 3] },
  added: { colour: "#ffffff", width: 2, plus: true },
  removed: { colour: "#ff4d4d", width: 2, cross: true },
  both: { colour: "#7fd49a", width: 2 },
  here: { colour: "#ffb000", width: 2, dash: [6, 3] },
  there: { colour: "#6cb6ff", width: 2, dash: [2, 3] },
  right: { colour: "#7fd49a", width: 2 },
  wrong: { colour: "#ff7b7b", width: 2, cross: true },
  missed: { colour: "#6cb6ff", width: 2, dash: [2, 3] },
  uncertain: { colour: "#c9b8ff", width: 2, dash: [3, 3] },
};
export const colourOfStyle = (name) => STYLES[name].colour;

function path(g, style, x, y, radius) {
  const s = STYLES[style] ?? { colour: COLOURS[style], width: 2 };
  const ring = (width, colour, dash) => {
    g.lineWidth = width; g.strokeStyle = colour; g.setLineDash(dash ?? []);
    if (style !== "removed") { g.beginPath(); g.arc(x, y, radius, 0, 2 * Math.PI); g.stroke(); }
  };
  if (s.width >= 1.5) ring(s.width + 1.6, "#0009", s.dash);
  ring(s.width, s.colour, s.dash);
  g.setLineDash([]);
  const r = Math.max(3, radius * 0.35);
  for (const [width, colour] of [[s.width + 1.5, "#0009"], [s.width, s.colour]]) {
    g.lineWidth = width; g.strokeStyle = colour;
    g.beginPath();
    if (s.plus) { g.moveTo(x - r, y); g.lineTo(x + r, y); g.moveTo(x, y - r); g.lineTo(x, y + r); }
    if (s.cross) { g.moveTo(x - r, y - r); g.lineTo(x + r, y + r); g.moveTo(x - r, y + r); g.lineTo(x + r, y - r); }
    g.stroke();
  }
}

export function ring(view, g, style, x, y, diameter) {
  const [sx, sy] = view.toScreen(x, y), px = sx * view.ratio, py = sy * view.ratio, radius = Math.max(2, diameter / 2 * view.scale * view.ratio);
  const margin = radius + 4;
  if (px < -margin || py < -margin || px > g.canvas.width + margin || py > g.canvas.height + margin) return;
  if (2 * radius > SPRITE_PX) { path(g, style, px, py, radius); return; }
  const made = sprite(style, Math.round(radius));
  g.drawImage(made, Math.round(px - made.width / 2), Math.round(py - made.height / 2));
}

// s: {candidates, states, picks, marks, diameter, range: [low, high], showBelow, showRejected, selected, ...}
export function drawOver(view, canvas, s) {
  const g = canvas.getContext("2d");
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.clearRect(0, 0, canvas.width, canvas.height);
  for (const mark of Object.values(s.marks)) if (mark.kind === "junk") outline(view, g, mark.points, "#ff7b7b", true);
  const c = s.candidates;
  if (s.compared) {
    for (const one of s.compared) ring(view, g, one.style, one.x, one.y, s.diameter);
  } else if (c) {
    if (s.showBelow) for (let k = 0; k < c.n; k++) if (s.states[k] === 0) ring(view, g, "below", c.x[k], c.y[k], s.size(c.diameter[k]));
    if (s.showRejected) for (let k = 0; k < c.n; k++) if (s.states[k] === 2) ring(view, g, "rejected", c.x[k], c.y[k], s.size(c.diameter[k]));
    for (const mark of Object.values(s.marks)) if (mark.kind === "no") ring(view, g, "removed", mark.x, mark.y, s.diameter);
    for (const pick of s.picks) ring(view, g, pick.mark === undefined ? colourOf(pick.score, ...s.range) : "added", pick.x, pick.y, s.size(pick.d));
  }
  for (const pick of s.selected) highlight(view, g, pick, s.size(pick.d), "#ffffff");
  if (s.hovered) highlight(view, g, s.hovered, s.size(s.hovered.d), "#ff5ccf");
  if (s.lasso) outline(view, g, s.lasso, "#ffffff", false);
  if (s.cursor) {
    g.lineWidth = 1.5 * view.ratio; g.strokeStyle = "#fff"; g.setLineDash([4, 3]);
    g.beginPath(); g.arc(s.cursor[0] * view.ratio, s.cursor[1] * view.ratio, s.cursorRadius * view.ratio, 0, 7); g.stroke(); g.setLineDash([]);
  }
  if (s.crosshair) {
    const x = view.width / 2 * view.ratio, y = view.height / 2 * view.ratio;
    g.lineWidth = 1; g.strokeStyle = "#fffb"; g.beginPath();
    g.moveTo(x - 12, y); g.lineTo(x + 12, y); g.moveTo(x, y - 12); g.lineTo(x, y + 12); g.stroke();
  }
}

function highlight(view, g, pick, diameter, colour) {
  const [sx, sy] = view.toScreen(pick.x, pick.y), r = Math.max(5, diameter / 2 * view.scale) + 4;
  g.lineWidth = 2 * view.ratio; g.strokeStyle = colour; g.setLineDash([]);
  g.strokeRect((sx - r) * view.ratio, (sy - r) * view.ratio, 2 * r * view.ratio, 2 * r * view.ratio);
}

function outline(view, g, points, colour, isFilled) {
  g.beginPath();
  points.forEach(([x, y], k) => { const [sx, sy] = view.toScreen(x, y); g[k ? "lineTo" : "moveTo"](sx * view.ratio, sy * view.ratio); });
  g.closePath();
  if (isFilled) { g.fillStyle = "#ff4d4d33"; g.fill(); }
  g.lineWidth = 1.5 * view.ratio; g.strokeStyle = colour; g.setLineDash([5, 4]); g.stroke(); g.setLineDash([]);
}
