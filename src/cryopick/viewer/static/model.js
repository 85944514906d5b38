// Marks, cuts and colours as pure functions. workflows/edits.py is the reference; a test holds both together.

export const NEAR = 0.3;
export const LOWEST = -3.4028234663852886e38;

export function isInside(points, x, y) {
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [x1, y1] = points[i], [x2, y2] = points[j];
    if (y1 === y2) continue;
    if (y1 > y !== y2 > y && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}

// How far a point lies from the line between two others.
export function distanceToStroke([x0, y0], [x1, y1], x, y) {
  const dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy;
  const share = length2 ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length2)) : 0;
  return Math.hypot(x - x0 - share * dx, y - y0 - share * dy);
}

// Which open candidates a cut keeps: a NaN score passes the lowest cut alone, a NaN power any limits.
export function isAbove(score, power, cut) {
  const passes = score >= Math.fround(cut.threshold) || (cut.threshold <= LOWEST && Number.isNaN(score));
  return passes && !(power < Math.fround(cut.low)) && !(power > Math.fround(cut.high));
}

// c: {n, x, y, score, diameter, power, reason}; marks: {id: {kind, x, y, d, points}}; cut: {threshold, low, high, belief}.
// Gives the states of candidates (1 kept, 0 below the cut, 2 rejected by a rule, 3 removed by a person) and the picks.
export function applyMarks(c, marks, cut, diameter) {
  const all = Object.entries(marks).map(([id, mark]) => ({ id, ...mark }));
  const yes = all.filter((m) => m.kind === "yes"), no = all.filter((m) => m.kind === "no"), junk = all.filter((m) => m.kind === "junk");
  const near = (NEAR * diameter) ** 2, states = new Uint8Array(c.n), picks = [], belief = Math.fround(cut.belief ?? 1);
  for (let k = 0; k < c.n; k++) {
    if (c.reason[k]) { states[k] = 2; continue; }
    if (!isAbove(belief === 1 ? c.score[k] : Math.fround(c.score[k] * belief), c.power[k], cut)) continue;
    const x = c.x[k], y = c.y[k];
    states[k] = 1;
    if (junk.some((m) => isInside(m.points, x, y))) states[k] = 3;
    for (const m of no) if (squared(m, x, y) <= near) states[k] = 3;
    for (const m of yes) if (squared(m, x, y) <= near) { states[k] = 4; break; }
    if (states[k] === 1) picks.push({ x, y, score: c.score[k], d: c.diameter[k], power: c.power[k], from: k });
  }
  for (const m of yes) {
    const best = nearest(c, m.x, m.y, near);
    picks.push({ x: m.x, y: m.y, score: best < 0 ? NaN : c.score[best], d: m.d ?? NaN, power: best < 0 ? NaN : c.power[best], mark: m.id });
  }
  return { states, picks };
}

const squared = (m, x, y) => { const dx = x - m.x, dy = y - m.y; return dx * dx + dy * dy; };

export function nearest(c, x, y, most) {
  let best = -1, least = Infinity;
  for (let k = 0; k < c.n; k++) {
    const d = squared({ x: c.x[k], y: c.y[k] }, x, y);
    if (d < least) { least = d; best = k; }
  }
  return least <= most ? best : -1;
}

let counter = 0;
export const newGroup = () => `${Date.now().toString(36)}-${(counter++).toString(36)}-${Math.random().toString(36).slice(2, 8)}`;

export function fold(state, ops) {
  const next = { ...state, marks: { ...state.marks } };
  for (const op of ops) {
    if (op.op === "verdict") next.verdict = op.value;
    else if (op.op === "complete") next.complete = op.value;
    else {
      delete next.marks[op.id];
      if (op.op === "put") next.marks[op.id] = { kind: op.kind, x: op.x, y: op.y, d: op.d, points: op.points };
    }
  }
  return next;
}

// Operations of an action on places. A new yes drops a near no and the reverse; a second of a kind moves the first.
export function markOps(state, places, diameter, what) {
  const group = newGroup(), near = (NEAR * diameter) ** 2, ops = [];
  places.forEach(({ kind, x, y, d, drop }, number) => {
    if (drop !== undefined) ops.push({ op: "drop", group, id: drop, what });
    if (kind) {
      const close = Object.entries(state.marks).filter(([id, m]) => (m.kind === "yes" || m.kind === "no") && id !== drop && squared(m, x, y) <= near);
      const same = close.find(([, m]) => m.kind === kind);
      ops.push({ op: "put", group, id: same ? same[0] : `${group}-${number}`, kind, x, y, ...(d > 0 && kind === "yes" ? { d } : {}), what });
      for (const [id] of close) if (!same || id !== same[0]) ops.push({ op: "drop", group, id, what });
    }
    state = fold(state, ops.slice(-3));
  });
  return ops;
}

// Taking picks away: a candidate gets a no; a yes is dropped, and gets a no where a candidate would come back.
export function removalOps(state, c, picks, diameter, what) {
  const near = (NEAR * diameter) ** 2;
  return markOps(state, picks.map((p) => {
    const returns = p.mark === undefined || nearest(c, p.x, p.y, near) >= 0;
    return { ...(returns ? { kind: "no", x: p.x, y: p.y } : {}), ...(p.mark === undefined ? {} : { drop: p.mark }) };
  }), diameter, what);
}

const VIRIDIS = "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725".split(" ").map((c) => `#${c}`);
export const COLOURS = VIRIDIS;
export function colourOf(score, low, high) {
  if (Number.isNaN(score)) return 8;
  return Math.min(15, Math.max(0, Math.floor((score - low) / Math.max(high - low, 1e-9) * 16)));
}
