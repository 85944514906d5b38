// The page: what is open, what is asked for, and which key or button does what.

import { json, floats, bitmap, ask, Problem } from "./api.js";
import { applyMarks, COLOURS, distanceToStroke, fold, isInside, LOWEST, markOps, newGroup, removalOps } from "./model.js";
import { View, listen } from "./view.js";
import { colourOfStyle, drawImage, drawOver } from "./draw.js";
import { drawHistogram, drawScatter } from "./charts.js";
import { List } from "./list.js";
import { startCompare } from "./compare.js";
import { startLearning } from "./learn.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const REST_MS = 80, TILE_PX = 512, BASE_PX = 2048, GALLERY = 24, KEPT_MICROGRAPHS = 5, POLL_MS = 2000, FIRST_REST_MS = 1000;

export const app = {
  runs: [], table: null, number: -1, open: null, cache: new Map(), view: null, curve: null,
  cut: { threshold: 0, isOwn: true, low: 0, high: Infinity }, tool: "pointer", eraser: 24, layer: "raw", band: null, overlay: "", opacity: 0.5,
  showBelow: false, showRejected: false, selected: [], hovered: null, queue: [], isSending: false, drag: null, since: 0, readOnly: "", exact: null, compare: null, junkLasso: false,
};

// ------------------------------------------------------------------------------------------------------------ words

export function say(text) { $("speech").textContent = text; }
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
export function banner(text, buttons = []) {
  const box = $("banner");
  box.hidden = !text;
  box.replaceChildren(text);
  for (const [label, run] of buttons) box.append(make("button", { textContent: label, onclick: run }));
}
const percent = (share) => share > 0.9995 ? "100 %" : `${(100 * share).toFixed(1)} %`;
const number = (value) => value.toLocaleString("en");

// ------------------------------------------------------------------------------------------------------- micrographs

const address = (i, rest) => `/api/r/0/m/${i}/${rest}${rest.includes("?") ? "&" : "?"}v=${app.table.stamp[i]}`;
const levelOf = ([h, w]) => { let level = 0; while (Math.max(Math.ceil(h / 2 ** level), Math.ceil(w / 2 ** level)) > BASE_PX) level++; return level; };
const layerKey = () => app.layer === "band" && app.band ? `band?low=${app.band[0]}&high=${app.band[1]}` : app.layer;

function entryOf(i) {
  let entry = app.cache.get(i);
  if (!entry) { entry = { i, base: new Map(), tiles: new Map(), asked: new Set(), maps: new Map(), stamp: app.table.stamp[i], taken: 0 }; }
  app.cache.delete(i);
  app.cache.set(i, entry);
  while (app.cache.size > KEPT_MICROGRAPHS) {
    const oldest = app.cache.keys().next().value;
    if (oldest === app.number) break;
    app.cache.delete(oldest);
  }
  return entry;
}

async function readCandidates(entry, signal) {
  if (entry.candidates) return;
  const { values, headers } = await floats(address(entry.i, "candidates"), { signal });
  const n = values.length / 7, column = (k) => { const out = new Float32Array(n); for (let a = 0; a < n; a++) out[a] = values[7 * a + k]; return out; };
  entry.reasons = JSON.parse(headers.get("x-reasons") || "[]");
  entry.candidates = { n, x: column(0), y: column(1), score: column(2), diameter: column(3), power: column(4), reason: Uint8Array.from(column(5)), klass: column(6) };
}

function take(entry, state) {
  entry.state = state;
  entry.taken += 1;
}

// An answer that newer ones have overtaken is not taken: it would bring back what has been erased meanwhile.
async function readMarks(entry, signal) {
  let taken, state;
  do {
    taken = entry.taken;
    state = await json(`/api/r/0/m/${entry.i}/marks`, { signal });
  } while (taken !== entry.taken);
  take(entry, state);
  for (const one of app.queue) if (one.i === entry.i && one.body.ops) entry.state = fold(entry.state, one.body.ops);
}

async function readBase(entry, signal, priority) {
  const key = layerKey();
  if (entry.base.has(key)) return;
  const { picture, note } = await bitmap(address(entry.i, `base/${key}`), { signal, priority });
  entry.base.set(key, picture);
  if (entry.base.size > 4) entry.base.delete(entry.base.keys().next().value);
  entry.note = note || "";
}

export async function openMicrograph(i) {
  if (i === undefined || i < 0 || i >= app.table.name.length) return;
  app.aborter?.abort();
  const { signal } = app.aborter = new AbortController();
  const isSame = i === app.number;
  app.number = i;
  app.selected = []; app.hovered = null; app.drag = null; app.compared = null;
  const entry = app.open = entryOf(i);
  app.list.show(i);
  root.dataset.micrograph = String(i);
  root.dataset.state = "loading";
  $("note").hidden = true;
  const failed = app.table.failed[i], shape = app.table.shape[i];
  if (failed) {
    note(`not picked: ${failed}`);
    entry.candidates = entry.candidates ?? empty(); entry.state = entry.state ?? { marks: {}, verdict: "none", complete: false };
  }
  if (shape && !isSame) app.view.setImage(shape[1], shape[0]);
  const slow = setTimeout(() => { $("wait").hidden = false; }, 300);
  redraw();
  const started = performance.now();
  try {
    const overview = (async () => {
      if (!entry.overview && !entry.base.has(layerKey())) {
        try { entry.overview = (await bitmap(address(i, "overview"), { signal })).picture; } catch (error) { if (error.name === "AbortError" || error.status === 401 || error.status === 0) throw error; }
        if (!shape && entry.overview) app.view.setImage(entry.overview.width, entry.overview.height);
        if (app.open === entry) { redraw(); if (root.dataset.state === "loading") root.dataset.state = "overview"; app.firstPicture ??= performance.now(); }
      }
    })();
    const table = failed ? null : Promise.all([readCandidates(entry, signal), readMarks(entry, signal)]).then(() => { if (app.open === entry) { changed(); measureAgain(); } });
    await Promise.all([overview, table]);
    if (entry.state?.damaged) note(entry.state.damaged);
    try {
      await readBase(entry, signal);
      if (entry.note) note(entry.note);
    } catch (error) {
      if (error.name === "AbortError" || error.status === 401 || error.status === 0) throw error;
      note(`the micrograph itself cannot be shown (${error.message}); this is the picture that the run kept`);
    }
    if (app.open !== entry) return;
    redraw(); gallery();
    if (app.overlay) readOverlay(entry, signal);
    root.dataset.state = "sharp";
    app.lastOpenMs = performance.now() - started;
    say(`${app.table.name[i]}, ${entry.picks?.length ?? 0} picks`);
    setTimeout(() => { if (!signal.aborted) prefetch(signal); }, app.hasRested ? 0 : FIRST_REST_MS);  // a first page stays small
    app.hasRested = true;
  } catch (error) {
    if (error.name !== "AbortError") trouble(error);
  } finally {
    clearTimeout(slow);
    if (app.open === entry) $("wait").hidden = true;
  }
}

const empty = () => ({ n: 0, x: [], y: [], score: [], diameter: [], power: [], reason: [], klass: [] });
function note(text) { $("note").textContent = text; $("note").hidden = !text; }

async function prefetch(signal) {
  for (const step of [1, -1]) {
    const i = app.list.neighbour(step);
    if (i === undefined || app.table.failed[i] || signal.aborted) continue;
    const entry = entryOf(i);
    app.cache.delete(app.number); app.cache.set(app.number, app.open);
    try { await readCandidates(entry, signal); await readMarks(entry, signal); await readBase(entry, signal, "low"); } catch { /* asked again when it is opened */ }
  }
}

async function readOverlay(entry, signal) {
  const which = app.table.maps[entry.i].indexOf(app.overlay);
  if (which < 0 || entry.maps.has(app.overlay)) { redraw(); return; }
  try {
    const { picture } = await bitmap(address(entry.i, `map/${which}`), { signal });
    const canvas = new OffscreenCanvas(picture.width, picture.height), g = canvas.getContext("2d");
    g.drawImage(picture, 0, 0);
    const data = g.getImageData(0, 0, picture.width, picture.height), hue = app.overlay.includes("junk") ? [255, 90, 60] : [70, 200, 255];
    for (let k = 0; k < data.data.length; k += 4) { data.data[k + 3] = data.data[k]; [data.data[k], data.data[k + 1], data.data[k + 2]] = hue; }
    g.putImageData(data, 0, 0);
    entry.maps.set(app.overlay, canvas);
    redraw();
  } catch (error) { if (error.name !== "AbortError") note(`no picture of ${app.overlay} is kept for this micrograph`); }
}

// ------------------------------------------------------------------------------------------------------------ drawing

let isAsked = false;
export function redraw() {
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => { isAsked = false; paint(); });
}

function paint() {
  const entry = app.open, view = app.view;
  if (!view) return;
  view.snap();
  const shown = [];
  if (entry) {
    const [w, h] = view.image, base = entry.base.get(layerKey()) ?? entry.base.values().next().value;
    if (base) {
      const level = app.layer === "raw" ? levelOf([h, w]) : 0, block = 2 ** level;
      const full = app.layer === "raw" ? [base.width * block, base.height * block] : [w, h];
      shown.push({ picture: base, x: 0, y: 0, w: full[0], h: full[1] });
    } else if (entry.overview) shown.push({ picture: entry.overview, x: 0, y: 0, w, h });
    if (app.layer === "raw" && base) shown.push(...tiles(entry));
    const overlay = app.overlay && entry.maps.get(app.overlay);
    if (overlay) shown.push({ picture: overlay, x: 0, y: 0, w, h, alpha: app.opacity });
  }
  drawImage(view, $("image"), shown);
  const d = entry ? diameterOf(entry) : 1, size = (own) => own > 0 ? own : d;
  drawOver(view, $("over"), {
    candidates: entry?.candidates, states: entry?.states ?? [], picks: entry?.picks ?? [], marks: entry?.state?.marks ?? {}, diameter: d, size, range: ringRange(), compared: app.compare?.isOn ? app.compare.rings : null,
    showBelow: app.showBelow, showRejected: app.showRejected, selected: app.selected, hovered: app.hovered, lasso: app.drag?.lasso, cursor: app.tool === "eraser" ? app.pointer : null, cursorRadius: app.eraser, crosshair: app.crosshair,
  });
  scaleBar();
  app.frames = (app.frames ?? 0) + 1;
}

const diameterOf = (entry) => app.table.diameter[entry.i];
const ringRange = () => { const [lo, hi] = scoreRange(); return [Math.max(lo, app.cut.threshold <= LOWEST ? lo : app.cut.threshold), hi]; };
export const scoreRange = () => app.curve ? [app.curve.threshold[0], app.curve.threshold[1000]] : app.runs[0]?.score_range ?? [0, 1];

function tiles(entry) {
  const view = app.view, [w, h] = view.image, top = levelOf([h, w]), wanted = Math.max(0, Math.floor(Math.log2(1 / (view.scale * view.ratio)) + 0.3));
  if (wanted >= top) return [];
  const shown = [], block = 2 ** wanted, side = TILE_PX * block;
  const [x0, y0] = [Math.max(0, view.left), Math.max(0, view.top)], [x1, y1] = [Math.min(w, view.left + view.width / view.scale), Math.min(h, view.top + view.height / view.scale)];
  for (let row = Math.floor(y0 / side); row * side < y1; row++) for (let column = Math.floor(x0 / side); column * side < x1; column++) {
    const key = `${wanted}/${column}/${row}`, tile = entry.tiles.get(key);
    if (tile) shown.push({ picture: tile, x: column * side, y: row * side, w: tile.width * block, h: tile.height * block });
    else if (!entry.asked.has(key)) {
      entry.asked.add(key);
      bitmap(address(entry.i, `tile/raw/${key}`), { signal: app.aborter?.signal }).then(({ picture }) => { entry.tiles.set(key, picture); redraw(); }).catch(() => entry.asked.delete(key));
    }
  }
  return shown;
}

function scaleBar() {
  const size = app.open && app.table.pixel_size[app.open.i], view = app.view, unit = size ?? 1;
  const wide = 110 / view.scale * unit, power = 10 ** Math.floor(Math.log10(wide)), length = [5, 2, 1].map((k) => k * power).find((one) => one <= wide) ?? power;
  $("scalebar").firstElementChild.textContent = size ? (length >= 10000 ? `${length / 10000} µm` : length >= 10 ? `${length / 10} nm` : `${length} Å`) : `${length} px`;
  $("scalebar").firstElementChild.style.width = `${Math.round(length / unit * view.scale)}px`;
}

// -------------------------------------------------------------------------------------------------------------- the cut

export function currentCut() { return { threshold: app.cut.threshold, low: app.cut.low, high: app.cut.high, belief: app.cut.isOwn && app.open ? app.table.belief[app.open.i] : 1 }; }
export function cutQuery() { return `threshold=${app.cut.isOwn ? "" : app.cut.threshold}${app.cut.low > 0 ? `&low=${app.cut.low}` : ""}${Number.isFinite(app.cut.high) ? `&high=${app.cut.high}` : ""}`; }

// After candidates, marks or the cut changed: the picks anew, and all that shows them.
export function changed() {
  const entry = app.open;
  if (entry?.candidates && entry.state) {
    const { states, picks } = applyMarks(entry.candidates, entry.state.marks, currentCut(), diameterOf(entry));
    Object.assign(entry, { states, picks });
    app.selected = app.selected.map((old) => picks.find((p) => p.x === old.x && p.y === old.y)).filter(Boolean);
  }
  redraw(); charts(); status(); legend();
}

let restTimer;
function setThreshold(value, { isOwn = false } = {}) {
  app.cut.threshold = value; app.cut.isOwn = isOwn; app.exact = null;
  showSlider(); changed();
  clearTimeout(restTimer);
  restTimer = setTimeout(measureAgain, REST_MS);
}

function showSlider() {
  const [lo, hi] = scoreRange(), slider = $("threshold");
  if (document.activeElement !== $("threshold-number")) $("threshold-number").value = app.cut.threshold <= LOWEST ? "all" : Number(app.cut.threshold.toPrecision(4));
  slider.value = String(Math.round((Math.max(lo, app.cut.threshold) - lo) / Math.max(hi - lo, 1e-9) * 1000));
  slider.setAttribute("aria-valuetext", `score ${$("threshold-number").value}`);
  $("own-cut").disabled = app.cut.isOwn && !(app.cut.low > 0) && !Number.isFinite(app.cut.high);
  numbers();
}

function numbers() {
  const run = app.runs[0];
  let kept, precision, recall, about = "";
  if (app.exact) ({ kept, precision, recall } = app.exact);
  else if (app.curve && !(app.cut.low > 0) && !Number.isFinite(app.cut.high)) {
    const [lo, hi] = scoreRange(), at = Math.min(1000, Math.max(0, Math.round((app.cut.threshold - lo) / Math.max(hi - lo, 1e-9) * 1000)));
    [kept, precision, recall, about] = [app.curve.kept[at], app.curve.precision[at], app.curve.recall[at], "~"];
  }
  const parts = [];
  if (run?.is_probability && Number.isFinite(precision)) parts.push(`${about}${percent(precision)} right`, `${about}${percent(recall)} found`);
  if (kept !== undefined) parts.push(`${about}${number(kept)} kept`);
  if (app.indexed && app.indexed[0] < app.indexed[1]) parts.push(`of ${number(app.indexed[0])} of ${number(app.indexed[1])} micrographs so far`);
  $("numbers").textContent = parts.join(" · ");
}

export function refreshCut() { showSlider(); changed(); measureAgain(); }

let measuring;
async function measureAgain() {
  measuring?.abort();
  const { signal } = measuring = new AbortController();
  try {
    const data = await (await ask(`/api/r/0/expect?${cutQuery()}`, { signal })).arrayBuffer();
    const [kept, precision, recall, indexed, all] = new Float64Array(data, 0, 5), per = new Uint32Array(data, 40);
    app.exact = { kept, precision, recall };
    app.indexed = [indexed, all];
    app.table.kept = Array.from(per, (n) => n === 0xffffffff ? null : n);
    numbers(); app.list.draw();
    root.dataset.exact = String(kept);
  } catch (error) { if (error.name !== "AbortError") trouble(error); }
}

async function readCurve() {
  const { values, headers } = await floats("/api/r/0/curve");
  const part = (k) => values.subarray(k * 1001, (k + 1) * 1001);
  app.curve = { threshold: part(0), kept: part(1), precision: part(2), recall: part(3), histogram: values.subarray(4004) };
  app.indexed = headers.get("x-indexed").split(" of ").map(Number);
  const hasScores = app.curve.kept[0] > 0;
  $("threshold").disabled = $("threshold-number").disabled = !hasScores;
  if (!hasScores) $("threshold").title = "no candidate has a score";
  showSlider(); charts();
}

let chart;
function charts() {
  const s = { curve: app.curve, range: scoreRange(), threshold: Math.max(scoreRange()[0], app.cut.threshold), low: app.cut.low, high: app.cut.high, candidates: app.open?.candidates, states: app.open?.states ?? [], hovered: app.hovered };
  if (app.isDragging) { cancelAnimationFrame(app.chartFrame); app.chartFrame = requestAnimationFrame(() => { chart = drawScatter($("scatter"), s); drawHistogram($("histogram"), s); }); return; }
  chart = drawScatter($("scatter"), s); drawHistogram($("histogram"), s);
}

function legend() {
  const entry = app.open, box = $("legend"), items = [];
  if (app.compare?.isOn) items.push(...app.compare.legend());
  else {
    items.push([COLOURS[2], "lowest score"], [COLOURS[15], "highest"]);
    const kinds = Object.values(entry?.state?.marks ?? {}).map((m) => m.kind);
    if (kinds.includes("yes")) items.push([colourOfStyle("added"), "+ added"]);
    if (kinds.includes("no")) items.push([colourOfStyle("removed"), "× removed"]);
    if (app.showBelow) items.push([colourOfStyle("below"), "below the cut"]);
    if (app.showRejected) items.push([colourOfStyle("rejected"), "rejected by a rule"]);
  }
  box.replaceChildren(...items.map(([colour, text]) => { const dot = make("i"); dot.style.borderColor = colour; return make("span", {}, dot, text); }));
}

function status() {
  const entry = app.open;
  if (!entry) return;
  const marks = Object.values(entry.state?.marks ?? {}), count = (kind) => marks.filter((m) => m.kind === kind).length;
  const removed = entry.states ? entry.states.reduce((n, s) => n + (s === 3), 0) : 0;
  const words = [`${number(entry.picks?.length ?? 0)} picks here`, `${count("yes")} added`, `${removed} removed`];
  const shape = app.table.shape[entry.i];
  const outside = shape ? marks.filter((m) => m.x < -0.5 || m.y < -0.5 || m.x > shape[1] - 0.5 || m.y > shape[0] - 0.5).length : 0;
  if (outside) words.push(`${outside} marks outside`);
  if (entry.state && entry.state.verdict !== "none") words.push(entry.state.verdict);
  if (entry.state?.complete) words.push("complete");
  $("status").textContent = words.join(", ");
  $("undoable").textContent = entry.state?.undo ? `undo: ${entry.state.undo}` : "";
  $("over").setAttribute("aria-label", `${app.table.name[entry.i]}: ${words.join(", ")}`);
  const one = app.selected[0] ?? app.hovered;
  $("pick").textContent = one ? describe(one) : "none selected; click on one, or `.` for the best";
  for (const [verdict, id] of [["good", "verdict-good"], ["bad", "verdict-bad"]]) $(id)?.setAttribute("aria-pressed", entry.state?.verdict === verdict);
  $("complete")?.setAttribute("aria-pressed", Boolean(entry.state?.complete));
  if ($("undo")) { $("undo").disabled = !entry.state?.undos; $("redo").disabled = !entry.state?.redos; }
}

function describe(pick) {
  const entry = app.open, parts = [];
  if (pick.mark !== undefined) parts.push("added by you");
  if (pick.reason) parts.push(`rejected: ${pick.reason}`);
  if (Number.isFinite(pick.score)) parts.push(`score ${pick.score.toPrecision(3)}`);
  if (pick.power > 0) parts.push(`power ${pick.power.toFixed(2)}`);
  const d = pick.d > 0 ? pick.d : diameterOf(entry), size = app.table.pixel_size[entry.i];
  parts.push(size ? `${Math.round(d * size)} Å wide` : `${Math.round(d)} px wide`, `at ${pick.x.toFixed(1)}, ${pick.y.toFixed(1)} px`);
  return parts.join(", ");
}

// --------------------------------------------------------------------------------------------------------------- edits

const queueKey = () => `cryopick-unsaved:${app.runs[0]?.path ?? ""}`;
const canEdit = () => {
  if (app.readOnly) { banner(app.readOnly, [["close", () => banner("")]]); return false; }
  return Boolean(app.open?.state && !app.open.state.damaged && !app.table.failed[app.open.i]);
};

export function commit(ops) {
  if (!ops.length || !canEdit()) return;
  const entry = app.open;
  entry.state = fold(entry.state, ops);
  enqueue(entry.i, { ops });
  changed(); gallery();
  flagsOf(entry);
}

function flagsOf(entry) {
  app.table.edited[entry.i] = Object.keys(entry.state.marks).length;
  app.table.verdict[entry.i] = entry.state.verdict;
  app.table.complete[entry.i] = entry.state.complete;
  app.list.draw();
}

function enqueue(i, body) {
  app.queue.push({ i, body });
  remember();
  send();
}

function remember() {
  try { app.queue.length ? localStorage.setItem(queueKey(), JSON.stringify(app.queue)) : localStorage.removeItem(queueKey()); } catch { /* kept in the page */ }
  root.dataset.saved = app.queue.length ? "no" : "yes";
  $("saved").textContent = app.queue.length ? `saving ${app.queue.length} ...` : app.savedAt ? `saved ${app.savedAt}` : "";
}

async function send() {
  if (app.isSending) return;
  app.isSending = true;
  try {
    while (app.queue.length) {
      const { i, body } = app.queue[0];
      const state = await json(`/api/r/0/m/${i}/marks`, { body });
      app.queue.shift();
      app.savedAt = new Date().toLocaleTimeString();
      if (!app.queue.some((one) => one.i === i)) {
        const entry = app.cache.get(i);
        if (entry) { take(entry, state); flagsOf(entry); if (app.open === entry) { changed(); gallery(); } }
      }
      remember();
      if (app.isTroubled) { app.isTroubled = false; banner(""); }
    }
  } catch (error) {
    if (error.status >= 400 && error.status < 500 && error.status !== 401) {
      const lost = app.queue.shift();
      remember();
      banner(`an edit was refused: ${error.message}`, [["close", () => banner("")]]);
      const entry = app.cache.get(lost.i);
      if (entry) { await readMarks(entry).catch(() => {}); if (app.open === entry) changed(); }
      setTimeout(send, 50);
    } else {
      trouble(error);
      if (error.status !== 401) setTimeout(send, 2000);
    }
  } finally { app.isSending = false; }
}

export function trouble(error) {
  app.isTroubled = true;
  const unsaved = app.queue.length ? `; ${app.queue.length} ${app.queue.length === 1 ? "edit is" : "edits are"} not saved and kept in this page` : "";
  banner(`${error.message}${unsaved}`, error.status === 401 ? [] : [["try again", () => { banner(""); app.isTroubled = false; send(); if (root.dataset.state !== "sharp" && app.number >= 0) openMicrograph(app.number); }]]);
  root.dataset.trouble = String(error.status ?? "");
}

function undo(forward) {
  if (!canEdit()) return;
  const state = app.open.state, label = forward ? state.redo : state.undo;
  if (!(forward ? state.redos : state.undos) && !app.queue.length) { say("nothing to undo"); return; }
  enqueue(app.open.i, { [forward ? "redo" : "undo"]: true, group: newGroup() });
  say(`${forward ? "redone" : "undone"}: ${label}`);
}

const addAt = (x, y) => { commit(markOps(app.open.state, [{ kind: "yes", x: round(x), y: round(y), d: diameterOf(app.open) }], diameterOf(app.open), "added")); say("added"); };
const round = (v) => Math.round(v * 1000) / 1000;
function remove(picks, what = "removed") {
  if (!picks.length || !canEdit()) return;
  const at = picks.length === 1 ? orderByScore().findIndex((p) => p.x === picks[0].x && p.y === picks[0].y) + 1 : 0, of = app.open.picks.length;
  commit(removalOps(app.open.state, app.open.candidates, picks, diameterOf(app.open), what));
  say(picks.length === 1 ? `pick ${at} of ${of}, removed` : `${picks.length} picks ${what}`);
  app.selected = [];
}
function confirm(picks) {
  if (!picks.length || !canEdit()) return;
  commit(markOps(app.open.state, picks.map((p) => ({ kind: "yes", x: p.x, y: p.y, d: p.d > 0 ? p.d : diameterOf(app.open) })), diameterOf(app.open), "confirmed"));
  say(`${picks.length} confirmed`);
}
function move(pick, x, y) {
  const entry = app.open, d = diameterOf(entry), far = Math.hypot(x - pick.x, y - pick.y) > 0.3 * d, places = [];
  if (far || pick.mark !== undefined) {
    const ops = far ? removalOps(entry.state, entry.candidates, [pick], d, "moved") : [];
    const group = ops[0]?.group ?? newGroup();
    const rest = far ? markOps(fold(entry.state, ops), [{ kind: "yes", x: round(x), y: round(y), d: pick.d > 0 ? pick.d : d }], d, "moved")
      : [{ op: "put", id: pick.mark, kind: "yes", x: round(x), y: round(y), d: pick.d > 0 ? pick.d : d, what: "moved" }];
    commit([...ops, ...rest].map((op) => ({ ...op, group })));
  } else {
    places.push({ kind: "yes", x: round(x), y: round(y), d: pick.d > 0 ? pick.d : d });
    commit(markOps(entry.state, places, d, "moved"));
  }
  app.selected = (app.open.picks ?? []).filter((p) => Math.hypot(p.x - x, p.y - y) < 0.01);
  redraw(); status();
}
function setVerdict(value) {
  if (!canEdit()) return;
  commit([{ op: "verdict", value: app.open.state.verdict === value ? "none" : value, group: newGroup(), what: "verdict" }]);
  say(`micrograph ${app.open.state.verdict}`);
}
function tickComplete() {
  if (!canEdit()) return;
  const value = !app.open.state.complete;
  commit([{ op: "complete", value, group: newGroup(), what: "complete" }]);
  if (value) app.list.go(1);
}

// --------------------------------------------------------------------------------------------------------------- tools

function pickAt(sx, sy, { withHidden = false } = {}) {
  const entry = app.open;
  if (!entry?.picks) return null;
  const [x, y] = app.view.toImage(sx, sy), reach = Math.max(diameterOf(entry) / 2, 9 / app.view.scale);
  let best = null, least = reach;
  for (const p of entry.picks) { const d = Math.hypot(p.x - x, p.y - y); if (d <= least) { least = d; best = p; } }
  if (!best && withHidden) {
    const c = entry.candidates;
    for (let k = 0; k < c.n; k++) if ((entry.states[k] === 2 && app.showRejected) || (entry.states[k] === 0 && app.showBelow)) {
      const d = Math.hypot(c.x[k] - x, c.y[k] - y);
      if (d <= least) { least = d; best = { x: c.x[k], y: c.y[k], score: c.score[k], d: c.diameter[k], power: c.power[k], hidden: k, reason: c.reason[k] ? entry.reasons[c.reason[k] - 1] : "below the cut" }; }
    }
  }
  return best;
}

const isOnImage = (x, y) => x >= -0.5 && y >= -0.5 && x < app.view.image[0] - 0.5 && y < app.view.image[1] - 0.5;
const toolHandler = {
  down(sx, sy, event) {
    if (!app.open?.picks) return;
    const [x, y] = app.view.toImage(sx, sy);
    if (app.tool === "pointer") app.drag = { from: [sx, sy], pick: pickAt(sx, sy), isAdding: event.shiftKey };
    if (app.tool === "eraser") { app.drag = { erased: new Set(), at: [sx, sy] }; this.erase(sx, sy); }
    if (app.tool === "lasso") app.drag = { lasso: [[x, y]] };
  },
  move(sx, sy) {
    app.pointer = [sx, sy];
    const [x, y] = app.view.toImage(sx, sy);
    $("place").textContent = isOnImage(x, y) ? `x ${x.toFixed(1)} y ${y.toFixed(1)} px` : "";
    if (app.drag?.pick && Math.hypot(sx - app.drag.from[0], sy - app.drag.from[1]) > 3) { app.drag.isMoved = true; app.drag.to = [x, y]; app.hovered = { ...app.drag.pick, x, y }; redraw(); return; }
    if (app.drag?.erased) this.erase(sx, sy);
    else if (app.drag?.lasso) { app.drag.lasso.push([x, y]); redraw(); }
    else if (app.tool === "eraser") redraw();
    else if (app.tool === "pointer" && !app.drag) {
      const found = pickAt(sx, sy, { withHidden: true });
      if (found?.x !== app.hovered?.x || found?.y !== app.hovered?.y) { app.hovered = found; redraw(); status(); }
    }
  },
  up(sx, sy, event) {
    const drag = app.drag;
    app.drag = null;
    if (!drag) return;
    const [x, y] = app.view.toImage(sx, sy);
    if (app.tool === "pointer") {
      if (drag.isMoved) { app.hovered = null; if (isOnImage(x, y)) move(drag.pick, x - (app.view.toImage(...drag.from)[0] - drag.pick.x), y - (app.view.toImage(...drag.from)[1] - drag.pick.y)); }
      else if (drag.pick) { app.selected = event.shiftKey ? [...app.selected.filter((p) => p !== drag.pick), drag.pick] : [drag.pick]; redraw(); status(); }
      else if (isOnImage(x, y)) {
        const hidden = pickAt(sx, sy, { withHidden: true });
        addAt(hidden ? hidden.x : x, hidden ? hidden.y : y);
      }
    }
    if (drag.erased?.size) remove([...drag.erased], "erased");
    if (drag.lasso?.length > 2) {
      const points = thinned(drag.lasso).map(([a, b]) => [round(a), round(b)]);
      if (app.junkLasso) commit([{ op: "put", id: newGroup(), group: newGroup(), kind: "junk", x: points[0][0], y: points[0][1], points, what: "junk" }]);
      else remove(app.open.picks.filter((p) => isInside(points, p.x, p.y)), "erased");
    }
    redraw();
  },
  twice(sx, sy) { if (app.tool === "pointer") { const pick = pickAt(sx, sy); if (pick && pick.mark === undefined) confirm([pick]); } },
  erase(sx, sy) {
    const reach = app.eraser / app.view.scale, before = app.view.toImage(...app.drag.at), now = app.view.toImage(sx, sy);
    for (const p of app.open.picks) if (distanceToStroke(before, now, p.x, p.y) <= reach) app.drag.erased.add(p);
    app.drag.at = [sx, sy];
    app.selected = [...app.drag.erased];
    redraw();
  },
  leave() { app.pointer = null; $("place").textContent = ""; if (app.hovered && !app.drag) { app.hovered = null; status(); } redraw(); },
  cancel() { app.drag = null; app.hovered = null; app.selected = []; redraw(); status(); },
};

function thinned(points) {
  const [w, h] = app.view.image, d = diameterOf(app.open), clamp = ([x, y]) => [Math.min(w + d - 1, Math.max(-d, x)), Math.min(h + d - 1, Math.max(-d, y))];
  const step = Math.ceil(points.length / 500);
  return points.filter((_, k) => k % step === 0).map(clamp);
}

function setTool(name) {
  app.tool = name;
  for (const one of ["pointer", "eraser", "lasso", "hand"]) $(`tool-${one}`)?.setAttribute("aria-pressed", one === name);
  $("over").style.cursor = { pointer: "crosshair", eraser: "none", lasso: "crosshair", hand: "grab" }[name];
  app.selected = []; app.crosshair = false;
  redraw(); status();
}

const orderByScore = () => [...(app.open?.picks ?? [])].sort((a, b) => (b.score || 0) - (a.score || 0));
function step(by, fromCut) {
  const order = fromCut ? [...(app.open?.picks ?? [])].sort((a, b) => Math.abs(a.score - app.cut.threshold) - Math.abs(b.score - app.cut.threshold)) : orderByScore();
  if (!order.length) return;
  const at = app.selected.length ? order.findIndex((p) => p.x === app.selected[0].x && p.y === app.selected[0].y) : by > 0 ? -1 : order.length;
  const next = order[Math.min(order.length - 1, Math.max(0, at + by))];
  app.selected = [next];
  app.view.show(next.x, next.y);
  redraw(); status();
  say(`pick ${order.indexOf(next) + 1} of ${order.length}, ${describe(next)}`);
}
function nudge(dx, dy) {
  if (app.selected.length === 1 && canEdit()) move(app.selected[0], app.selected[0].x + dx, app.selected[0].y + dy);
  else app.view.pan(-dx * 60, -dy * 60);
}
function nudgeThreshold(by) { const [lo, hi] = scoreRange(); if (!$("threshold").disabled) setThreshold(Math.min(hi, Math.max(lo, Math.max(lo, app.cut.threshold) + by))); }

// -------------------------------------------------------------------------------------------------------------- layers

async function setLayer(name) {
  app.layer = app.layer === name ? "raw" : name;
  for (const one of ["band", "denoised"]) $(`layer-${one}`).setAttribute("aria-pressed", app.layer === one);
  $("band-limits").hidden = app.layer !== "band";
  saveView();
  if (!app.open) return;
  const entry = app.open, slow = setTimeout(() => { $("wait").hidden = false; }, 300);
  try { await readBase(entry, app.aborter?.signal); root.dataset.layer = app.layer; } catch (error) { if (error.name !== "AbortError") note(`this layer cannot be shown: ${error.message}`); } finally { clearTimeout(slow); $("wait").hidden = true; }
  redraw(); gallery();
}
function setOverlay(name) {
  const have = app.open ? app.table.maps[app.open.i] : [];
  const found = have.find((one) => one.toLowerCase().includes(name)) ?? (name === "heat" ? have.find((one) => !one.includes("junk")) : undefined);
  if (!found) { say(`the run keeps no map of ${name}`); note(`the run keeps no map of ${name === "heat" ? "particles" : name} for this micrograph`); return; }
  app.overlay = app.overlay === found ? "" : found;
  $("overlay").value = app.overlay;
  if (app.overlay) readOverlay(app.open, app.aborter?.signal); else redraw();
}

function gallery() {
  const entry = app.open, base = entry?.base.get(layerKey()) ?? entry?.overview, box = $("gallery");
  if (!entry?.picks || !base) { box.replaceChildren(); return; }
  const d = diameterOf(entry), [w] = app.view.image, k = base.width / w, marks = Object.values(entry.state.marks);
  const c = entry.candidates, around = [];
  for (let n = 0; n < c.n; n++) if (!c.reason[n] && Number.isFinite(c.score[n])) around.push(n);
  around.sort((a, b) => Math.abs(c.score[a] - app.cut.threshold) - Math.abs(c.score[b] - app.cut.threshold));
  box.replaceChildren(...around.slice(0, GALLERY).map((n) => {
    const canvas = make("canvas", { width: 64, height: 64 }), g = canvas.getContext("2d"), side = 1.6 * d * k, [x, y] = [(c.x[n] + 0.5) * k, (c.y[n] + 0.5) * k];
    g.drawImage(base, x - side / 2, y - side / 2, side, side, 0, 0, 64, 64);
    const mark = marks.find((m) => m.kind !== "junk" && Math.hypot(m.x - c.x[n], m.y - c.y[n]) <= 0.3 * d);
    const place = { x: c.x[n], y: c.y[n], d: c.diameter[n], score: c.score[n], power: c.power[n] };
    const button = make("button", { title: `score ${c.score[n].toPrecision(3)}: y or click, a particle; n, none` }, canvas);
    button.dataset.mark = mark?.kind ?? ""; button.dataset.sign = { yes: "✓", no: "×" }[mark?.kind] ?? "";
    button.setAttribute("aria-label", `close-up, score ${c.score[n].toPrecision(3)}${mark ? mark.kind === "yes" ? ", marked a particle" : ", marked none" : ""}`);
    const judge = (kind) => { if (canEdit()) commit(kind === "yes" ? markOps(entry.state, [{ kind, ...place, d: place.d > 0 ? place.d : d }], d, "confirmed") : markOps(entry.state, [{ kind: "no", x: place.x, y: place.y }], d, "removed")); };
    button.onclick = () => { judge(button.dataset.mark === "yes" ? "no" : "yes"); };
    button.onmouseenter = () => { app.hovered = place; redraw(); }; button.onmouseleave = () => { app.hovered = null; redraw(); };
    button.onkeydown = (event) => {
      if (event.key !== "y" && event.key !== "n") return;
      event.preventDefault(); event.stopPropagation();
      const at = [...box.children].indexOf(button);
      judge(event.key === "y" ? "yes" : "no");
      box.children[Math.min(at + 1, box.children.length - 1)]?.focus();
    };
    return button;
  }));
}

// ----------------------------------------------------------------------------------------------------- keys and buttons

const KEYS = [
  ["n|PageDown", "next micrograph", () => app.list.go(1)],
  ["p|PageUp", "previous micrograph", () => app.list.go(-1)],
  [".", "next pick by score", () => step(1)], [",", "previous pick by score", () => step(-1)],
  ["Shift+>|Shift+.|Shift+:", "next pick by distance from the cut", () => step(1, true)], ["Shift+<|Shift+,|Shift+;", "previous pick by distance from the cut", () => step(-1, true)],
  ["ArrowLeft", "move the selected pick 1 px, else pan", () => nudge(-1, 0)], ["ArrowRight", "", () => nudge(1, 0)], ["ArrowUp", "", () => nudge(0, -1)], ["ArrowDown", "", () => nudge(0, 1)],
  ["Shift+ArrowLeft", "move the selected pick 10 px", () => nudge(-10, 0)], ["Shift+ArrowRight", "", () => nudge(10, 0)], ["Shift+ArrowUp", "", () => nudge(0, -10)], ["Shift+ArrowDown", "", () => nudge(0, 10)],
  ["Ctrl+z", "undo", () => undo(false), "undo"], ["Ctrl+Shift+Z|Ctrl+y", "redo", () => undo(true), "redo"],
  ["x|Delete|Backspace", "remove the selected picks", () => remove(app.selected)], ["y|Enter", "confirm the selected picks", () => confirm(app.selected)],
  ["a", "add at the crosshair in the middle", () => { if (app.crosshair && canEdit()) { addAt(...app.view.toImage(app.view.width / 2, app.view.height / 2)); } else { app.crosshair = true; app.selected = []; redraw(); say("crosshair shown; arrows pan, a adds"); } }],
  ["1", "pointer", () => setTool("pointer")], ["2", "eraser", () => setTool("eraser")], ["3", "lasso", () => setTool("lasso")], ["4", "hand", () => setTool("hand")],
  ["[", "smaller eraser", () => { app.eraser = Math.max(4, app.eraser / 1.25); redraw(); }], ["]", "larger eraser", () => { app.eraser = Math.min(400, app.eraser * 1.25); redraw(); }],
  ["Alt+ArrowDown", "threshold down by 0.01", () => nudgeThreshold(-0.01)], ["Alt+ArrowUp", "threshold up by 0.01", () => nudgeThreshold(0.01)],
  ["Alt+Shift+ArrowDown", "threshold down by 0.001", () => nudgeThreshold(-0.001)], ["Alt+Shift+ArrowUp", "threshold up by 0.001", () => nudgeThreshold(0.001)],
  ["b", "band-pass", () => setLayer("band")], ["v", "denoised", () => setLayer("denoised")], ["h", "heatmap", () => setOverlay("heat")], ["j", "junk map", () => setOverlay("junk")],
  ["l", "show candidates below the cut", () => toggle("showBelow", "show-below")], ["r", "show candidates that a rule rejected", () => toggle("showRejected", "show-rejected")],
  ["f", "fit", () => app.view.fit()], ["0", "one to one", () => app.view.zoom(1 / app.view.ratio / app.view.scale)], ["+|=", "closer", () => app.view.zoom(1.3)], ["-", "farther", () => app.view.zoom(1 / 1.3)],
  ["g", "micrograph is good", () => setVerdict("good")], ["m", "micrograph is bad: left out of exports", () => setVerdict("bad")], ["k", "every particle is marked: complete, and go on", () => tickComplete()],
  ["c", "compare: off, both, only this, only the other", () => app.compare?.next()],
  ["Space", "held: pan", () => {}], ["Escape", "leave tool and selection", () => { toolHandler.cancel(); app.crosshair = false; setTool("pointer"); }],
  ["?", "these keys", () => help()],
];
const titleOf = (does) => { const found = KEYS.find(([, text]) => text === does); return found ? `${does} (${found[0].split("|")[0]})` : does; };
const bound = new Map(KEYS.flatMap(([keys, , run]) => keys.split("|").map((key) => [key, run])));

function keyOf(event) {
  const key = event.key === " " ? "Space" : event.key;
  const shifted = event.shiftKey && (key.length > 1 || event.ctrlKey || event.metaKey || ".,<>:;".includes(key));
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shifted ? "Shift+" : ""}${key}`;
}
addEventListener("keydown", (event) => {
  const target = event.target;
  if ($("dialog").open || (target.matches?.("input:not([type=range]), select, textarea"))) return;
  if (event.key === " ") { app.isSpace = true; if (target === $("over") || target === document.body) event.preventDefault(); return; }
  if (event.key === "Enter" && target.matches?.("button, summary")) return;
  if (target.matches?.("input[type=range]") && event.key.startsWith("Arrow") && !event.altKey) return;
  if (target === $("scatter") && event.key.startsWith("Arrow") && !event.altKey) return;
  const run = bound.get(keyOf(event));
  if (run && app.table) { event.preventDefault(); run(); }
});
addEventListener("keyup", (event) => { if (event.key === " ") app.isSpace = false; });

function toggle(name, id) { app[name] = !app[name]; $(id).setAttribute("aria-pressed", app[name]); redraw(); legend(); saveView(); }

export function dialog(title, ...content) {
  const box = $("dialog");
  box.replaceChildren(make("h2", { textContent: title }), ...content);
  box.setAttribute("aria-label", title);
  if (!box.open) box.showModal();
  box.scrollTop = 0;
  return box;
}
export const closeButton = (text = "close") => make("button", { textContent: text, onclick: () => $("dialog").close() });
function help() {
  const names = (keys) => keys.split("|").slice(0, 2).flatMap((key, k) => [k ? " " : "", make("kbd", { textContent: key.replace("Arrow", "").replace("Shift+>", "Shift .").replace("Shift+<", "Shift ,") })]);
  const rows = KEYS.filter(([, does]) => does).map(([keys, does]) => make("tr", {}, make("td", {}, ...names(keys)), make("td", { textContent: does })));
  dialog("Keys", make("table", {}, make("tbody", {}, ...rows)), make("p", { textContent: "Middle button or Space pans in every tool; the wheel zooms at the cursor; two fingers pan and zoom." }), make("div", { className: "buttons" }, closeButton()));
}

function buttons() {
  const bar = $("toolbar"), button = (id, text, does, run, pressed) => {
    const one = make("button", { id, textContent: text, title: titleOf(does), onclick: () => { run(); $("over").focus({ preventScroll: true }); } });
    if (pressed !== undefined) one.setAttribute("aria-pressed", pressed);
    return one;
  };
  const range = (id, label, min, max, value, input) => make("label", { htmlFor: id }, `${label} `, Object.assign(make("input", { id, type: "range", min, max, value, oninput: (event) => input(Number(event.target.value)) })));
  const contrast = { brightness: 100, contrast: 100 }, filter = () => { $("image").style.filter = contrast.brightness === 100 && contrast.contrast === 100 ? "" : `brightness(${contrast.brightness}%) contrast(${contrast.contrast}%)`; };
  const overlay = make("select", { id: "overlay", title: "map on top (h heatmap, j junk)", onchange: () => { app.overlay = overlay.value; if (app.overlay && app.open) readOverlay(app.open, app.aborter?.signal); else redraw(); } });
  overlay.setAttribute("aria-label", "map on top");
  overlay.append(make("option", { value: "", textContent: "no map" }), ...[...new Set(app.table.maps.flat())].map((name) => make("option", { value: name, textContent: name })));
  const limits = make("span", { id: "band-limits", hidden: app.layer !== "band" });
  const low = make("input", { size: 4, inputMode: "decimal", placeholder: "20", ariaLabel: "band from" }), high = make("input", { size: 4, inputMode: "decimal", placeholder: "auto", ariaLabel: "band to" });
  const setBand = () => { const [a, b] = [Number(low.value), Number(high.value)]; app.band = a > 0 && b > a ? [a, b] : null; app.layer = ""; setLayer("band"); };
  low.onchange = high.onchange = setBand;
  limits.append(low, " to ", high, app.table.pixel_size.some(Boolean) ? " Å" : " px");
  bar.replaceChildren(
    button("tool-pointer", "pointer", "pointer", () => setTool("pointer"), true), button("tool-eraser", "eraser", "eraser", () => setTool("eraser"), false), button("tool-lasso", "lasso", "lasso", () => setTool("lasso"), false), button("tool-hand", "hand", "hand", () => setTool("hand"), false),
    make("label", { title: "the lasso marks an area as junk instead of removing the picks inside" }, Object.assign(make("input", { type: "checkbox", onchange: (event) => { app.junkLasso = event.target.checked; if (app.junkLasso) setTool("lasso"); } })), " junk"),
    button("undo", "undo", "undo", () => undo(false)), button("redo", "redo", "redo", () => undo(true)),
    button("verdict-good", "good", "micrograph is good", () => setVerdict("good"), false), button("verdict-bad", "bad", "micrograph is bad: left out of exports", () => setVerdict("bad"), false), button("complete", "complete", "every particle is marked: complete, and go on", () => tickComplete(), false),
    button("layer-band", "band-pass", "band-pass", () => setLayer("band"), app.layer === "band"), limits, button("layer-denoised", "denoised", "denoised", () => setLayer("denoised"), app.layer === "denoised"), overlay,
    range("opacity", "map", 0, 100, 50, (v) => { app.opacity = v / 100; redraw(); }), range("brightness", "bright.", 30, 250, 100, (v) => { contrast.brightness = v; filter(); }), range("contrast", "contrast", 30, 400, 100, (v) => { contrast.contrast = v; filter(); }),
    button("show-below", "below cut", "show candidates below the cut", () => toggle("showBelow", "show-below"), app.showBelow), button("show-rejected", "rejected", "show candidates that a rule rejected", () => toggle("showRejected", "show-rejected"), app.showRejected),
    button("fit", "fit", "fit", () => app.view.fit()), button("one", "1:1", "one to one", () => app.view.zoom(1 / app.view.ratio / app.view.scale)), button("closer", "+", "closer", () => app.view.zoom(1.3)), button("farther", "−", "farther", () => app.view.zoom(1 / 1.3)),
    button("previous", "◀", "previous micrograph", () => app.list.go(-1)), button("next", "▶", "next micrograph", () => app.list.go(1)),
  );
  $("previous").ariaLabel = "previous micrograph"; $("next").ariaLabel = "next micrograph"; $("closer").ariaLabel = "closer"; $("farther").ariaLabel = "farther";
  const scheme = make("button", { id: "scheme", textContent: "◐", title: "dark or light", ariaLabel: "dark or light", onclick: () => { localStorage.setItem("cryopick-scheme", root.dataset.scheme === "dark" ? "light" : "dark"); applyScheme(); } });
  $("actions").append(scheme, make("button", { id: "help", textContent: "?", title: titleOf("these keys"), ariaLabel: "keys", onclick: help }));
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function applyScheme() { root.dataset.scheme = localStorage.getItem("cryopick-scheme") ?? (dark.matches ? "dark" : "light"); if (app.table) charts(); document.dispatchEvent(new Event("scheme")); }
dark.addEventListener("change", applyScheme);
applyScheme();

let viewTimer;
function saveView() {
  clearTimeout(viewTimer);
  viewTimer = setTimeout(() => {
    if (app.readOnly) return;
    const { threshold, isOwn, low, high } = app.cut;
    json("/api/view", { body: { threshold: isOwn ? null : threshold, low, high: Number.isFinite(high) ? high : null, layer: app.layer, below: app.showBelow, rejected: app.showRejected, sort: app.list.sort.value } }).catch(() => {});
  }, 600);
}

function listenToCut() {
  const slider = $("threshold"), box = $("threshold-number");
  slider.addEventListener("input", () => { const [lo, hi] = scoreRange(); app.isDragging = true; setThreshold(lo + slider.value / 1000 * (hi - lo)); });
  slider.addEventListener("change", () => { app.isDragging = false; charts(); gallery(); saveView(); });
  box.addEventListener("change", () => { const value = Number(box.value.replace(",", ".")); if (box.value.trim() === "all") setThreshold(LOWEST); else if (Number.isFinite(value) && box.value.trim()) setThreshold(value); box.blur(); showSlider(); gallery(); saveView(); });
  $("own-cut").onclick = () => { Object.assign(app.cut, { low: 0, high: Infinity }); $("power-low").value = $("power-high").value = ""; setThreshold(app.runs[0].threshold, { isOwn: true }); gallery(); saveView(); };
  const limits = () => { const read = (id, otherwise) => { const v = Number($(id).value.replace(",", ".")); return $(id).value.trim() && v > 0 ? v : otherwise; }; app.cut.low = read("power-low", 0); app.cut.high = read("power-high", Infinity); setThreshold(app.cut.threshold, { isOwn: app.cut.isOwn }); saveView(); };
  $("power-low").onchange = $("power-high").onchange = limits;
  const scatter = $("scatter");
  let held = null;
  const limit = (which, value) => { $(`power-${which}`).value = value === null ? "" : String(Number(value.toPrecision(3))); limits(); };
  scatter.addEventListener("pointerdown", (event) => {
    const box2 = scatter.getBoundingClientRect(), [px, py] = [event.clientX - box2.left, event.clientY - box2.top];
    if (Math.abs(px - chart.x(Math.max(scoreRange()[0], app.cut.threshold))) < 6) held = "threshold";
    else held = Math.abs(py - chart.y(app.cut.low || 0.0625)) < Math.abs(py - chart.y(Number.isFinite(app.cut.high) ? app.cut.high : 64)) ? "low" : "high";
    scatter.setPointerCapture(event.pointerId);
  });
  scatter.addEventListener("pointermove", (event) => {
    const box2 = scatter.getBoundingClientRect(), [px, py] = [event.clientX - box2.left, event.clientY - box2.top];
    if (held === "threshold") setThreshold(Math.min(scoreRange()[1], Math.max(scoreRange()[0], chart.scoreAt(px))));
    else if (held) { const value = chart.powerAt(py); limit(held, held === "low" ? (value < 0.07 ? null : value) : value > 60 ? null : value); }
    else if (app.open?.candidates && chart) {
      const c = app.open.candidates; let best = -1, least = 8;
      for (let k = 0; k < c.n; k++) if (c.power[k] > 0) { const d = Math.hypot(chart.x(c.score[k]) - px, chart.y(c.power[k]) - py); if (d < least) { least = d; best = k; } }
      app.hovered = best < 0 ? null : { x: c.x[best], y: c.y[best], d: c.diameter[best], score: c.score[best], power: c.power[best] };
      redraw(); status();
    }
  });
  for (const name of ["pointerup", "pointercancel"]) scatter.addEventListener(name, () => { held = null; gallery(); saveView(); });
  scatter.addEventListener("pointerleave", () => { app.hovered = null; redraw(); });
  scatter.addEventListener("keydown", (event) => {
    const factor = { ArrowUp: 1.1, ArrowDown: 1 / 1.1 }[event.key];
    if (factor && !event.altKey) { event.preventDefault(); event.stopPropagation(); event.shiftKey ? limit("low", (app.cut.low || 0.1) * factor) : limit("high", (Number.isFinite(app.cut.high) ? app.cut.high : 30) * factor); }
  });
  new ResizeObserver(() => charts()).observe(scatter);
}

// ---------------------------------------------------------------------------------------------------------- other pages

export const listeners = [];
async function poll() {
  if (document.hidden) return;
  try {
    const news = await json(`/api/changes?since=${app.since}`);
    if (app.isTroubled && !app.queue.length && root.dataset.trouble === "0") { app.isTroubled = false; banner(""); if (root.dataset.state !== "sharp") openMicrograph(app.number); }
    if (!news) return;
    app.since = news.since;
    for (const listener of listeners) listener(news.changes);
    let isTableNew = false, isIndexNew = false;
    for (const [what, run, i] of news.changes) {
      if (run) continue;
      if (what === "record") isTableNew = true;
      if (what === "index") isIndexNew = true;
      if (what === "marks" && !app.queue.some((one) => one.i === i)) {
        const entry = app.cache.get(i) ?? (app.number === i ? app.open : null);
        if (entry) { await readMarks(entry); flagsOf(entry); if (app.open === entry) { changed(); gallery(); } } else isTableNew = true;
      }
    }
    if (isTableNew) await readTable();
    if (isIndexNew) { await readCurve(); await measureAgain(); changed(); }
  } catch (error) { if (!(error instanceof Problem) || error.status === 0 || error.status === 401) trouble(error); }
}

export async function readTable() {
  const before = app.table, table = await json("/api/r/0/micrographs");
  table.kept = table.name.map((_, i) => before?.kept?.[i] ?? null);
  table.differ = before?.differ;
  app.table = table;
  for (const [i, entry] of app.cache) if (entry.stamp !== table.stamp[i]) { app.cache.delete(i); if (i === app.number) openMicrograph(i); }
  const last = Number(localStorage.getItem("cryopick-last:" + (app.runs[0]?.path ?? "")));
  app.list.setTable(table);
  if (app.number < 0 && table.name.length) await openMicrograph(last > 0 && last < table.name.length ? last : app.list.order[0] ?? 0);
}

function hints() {
  if (localStorage.getItem("cryopick-hinted")) return;
  const texts = ["Drag the slider above: rings and numbers follow at once.", "Click on the picture to add a pick, on a ring and then x to remove it; every change is saved at once, and can be undone.", "n goes to the next micrograph, ? shows all keys."];
  $("hints").replaceChildren(make("ol", {}, ...texts.map((text) => make("li", { textContent: text }))), make("button", { textContent: "got it", onclick: () => { localStorage.setItem("cryopick-hinted", "1"); $("hints").hidden = true; } }));
  $("hints").hidden = false;
}

async function start() {
  const missing = ["OffscreenCanvas", "createImageBitmap", "ResizeObserver", "PointerEvent"].filter((name) => !(name in window));
  if (missing.length) { banner(`this browser is too old: it has no ${missing.join(", ")}`); return; }
  app.view = new View($("stage"), [$("image"), $("over")], redraw);
  app.list = new List($("list"), $("list-height"), $("search"), $("sort"), $("filter"), openMicrograph);
  listen(app.view, $("over"), toolHandler, () => app.isSpace || app.tool === "hand");
  try {
    const [facts, table] = await Promise.all([json("/api/runs"), json("/api/r/0/micrographs")]);
    Object.assign(app, { runs: facts.runs, readOnly: facts.read_only, since: facts.since });
    const run = app.runs[0], saved = facts.view;
    $("title").textContent = `cryopick · ${run.title} · ${run.picker}`;
    document.title = `${run.title} · cryopick`;
    Object.assign(app.cut, { threshold: saved.threshold ?? run.threshold, isOwn: typeof saved.threshold !== "number", low: saved.low > 0 ? saved.low : 0, high: saved.high > 0 ? saved.high : Infinity });
    if (app.cut.low > 0) $("power-low").value = app.cut.low;
    if (Number.isFinite(app.cut.high)) $("power-high").value = app.cut.high;
    Object.assign(app, { layer: ["raw", "band", "denoised"].includes(saved.layer) ? saved.layer : "raw", showBelow: Boolean(saved.below), showRejected: Boolean(saved.rejected) });
    table.kept = table.name.map(() => null);
    app.table = table;
    buttons(); listenToCut(); hints();
    app.list.sort.value = saved.sort ?? "name";
    app.list.setTable(table);
    if (app.readOnly) banner(`read only: ${app.readOnly}`, [["close", () => banner("")]]);
    app.queue = JSON.parse(localStorage.getItem(queueKey()) ?? "[]");
    remember(); send();
    startCompare(facts); startLearning();
    const last = Number(localStorage.getItem("cryopick-last:" + run.path));
    const first = last > 0 && last < table.name.length ? last : app.list.order[0];
    readCurve().catch(trouble);
    if (first === undefined) { root.dataset.state = "empty"; note("no micrograph is finished yet; this page shows them as they come"); }
    else await openMicrograph(first);
    setInterval(poll, POLL_MS);
    try { new BroadcastChannel("cryopick").onmessage = poll; } catch { /* the poll does */ }
  } catch (error) { trouble(error); root.dataset.state = "failed"; }
}

addEventListener("pagehide", () => { if (app.number >= 0) localStorage.setItem("cryopick-last:" + (app.runs[0]?.path ?? ""), String(app.number)); });
addEventListener("beforeunload", (event) => { if (app.queue.length) event.preventDefault(); });
window.cryopick = app;
start();
