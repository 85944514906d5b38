// Compare: rings of both sets of picks, numbers for all, and the list sorted by how much they differ.

import { json } from "./api.js";
import { app, banner, changed, cutQuery, make, redraw, say, trouble } from "./app.js";
import { colourOfStyle } from "./draw.js";

const WORDS = { both: "in both", here: "only here", there: "only in the other", right: "right", wrong: "× wrong", missed: "missed", uncertain: "counts neither way" };
const MODES = ["off", "all", "mine", "theirs"], MODE_WORDS = { off: "off", all: "both", mine: "only this", theirs: "only the other" };

export function startCompare(facts, chosen) {
  const others = [...(facts.has_truth ? [["truth", "truth"]] : []), ...facts.runs.slice(1).map((run, k) => [String(k + 1), `${run.title} · ${run.picker}`])];
  if (!others.length) return;
  const box = document.getElementById("compare");
  const select = make("select", { ariaLabel: "compare with" });
  select.append(...others.map(([value, text]) => make("option", { value, textContent: text })));
  const mode = make("button", { id: "compare-mode", title: "off, both, only this, only the other (c)" });
  const here = make("p", { id: "compare-here" }), all = make("div", { id: "compare-all" });
  const measure = make("button", { textContent: "measure all micrographs", id: "compare-measure" });
  box.replaceChildren(make("h2", { textContent: "Compare" }), make("div", { className: "tools" }, select, mode), here, measure, all);
  box.hidden = false;

  const state = app.compare = { isOn: false, mode: "off", rings: [], every: [], next, refresh, legend };
  function show() {
    mode.textContent = `show: ${MODE_WORDS[state.mode]}`;
    state.isOn = state.mode !== "off";
    const hidden = { mine: ["there", "missed"], theirs: ["here", "wrong"] }[state.mode] ?? [];
    state.rings = state.every.filter((one) => !hidden.includes(one.style));
    redraw();
  }
  function next() {
    state.mode = MODES[(MODES.indexOf(state.mode) + 1) % MODES.length];
    show(); refresh();
    say(`compare: ${MODE_WORDS[state.mode]}`);
  }
  function legend() {
    const present = new Set(state.rings.map((one) => one.style));
    return Object.entries(WORDS).filter(([style]) => present.has(style)).map(([style, text]) => [colourOfStyle(style), text]);
  }
  let asking, last = "";
  async function refresh() {
    if (!state.isOn || app.number < 0) return;
    const query = `/api/r/0/m/${app.number}/matched/${select.value}?${cutQuery()}`, key = `${query} ${app.open?.state?.revision} ${app.queue.length}`;
    if (key === last) return;
    last = key;
    asking?.abort();
    const { signal } = asking = new AbortController();
    try {
      const found = await json(query, { signal });
      state.every = found.rings.map(([x, y, style]) => ({ x, y, style }));
      here.textContent = found.told || `here: ${Object.entries(found.counts).map(([name, n]) => `${n} ${WORDS[name].replace("× ", "")}`).join(", ")}`;
      document.documentElement.dataset.compared = String(found.rings.length);
      show(); changed();
    } catch (error) { if (error.name !== "AbortError") { last = ""; trouble(error); } }
  }
  clearInterval(app.compareTimer);
  app.compareTimer = setInterval(refresh, 300);
  async function measureAll() {
    measure.disabled = true;
    all.textContent = "measuring ...";
    try {
      const found = await json(`/api/r/0/scores/${select.value}?${cutQuery()}`);
      app.table.differ = found.differ;
      app.list.sort.value = "differ";
      app.list.arrange();
      const rows = Object.entries(found.scores).filter(([, v]) => Array.isArray(v)).map(([name, [value, low, high]]) => make("tr", {}, make("th", { textContent: name }), make("td", { textContent: value === null ? "-" : value.toFixed(3) }), make("td", { textContent: low === null ? "" : `${low.toFixed(3)} to ${high.toFixed(3)}` })));
      all.replaceChildren(make("p", { textContent: `${found.micrographs} micrographs: ${Object.entries(found.counts).map(([name, n]) => `${n.toLocaleString("en")} ${WORDS[name].replace("× ", "")}`).join(", ")}` }));
      if (found.scores.told) all.append(make("p", { textContent: found.scores.told }));
      if (rows.length) all.append(make("table", { className: "scores" }, make("tbody", {}, ...rows)));
    } catch (error) { all.textContent = ""; banner(error.message, [["close", () => banner("")]]); }
    measure.disabled = false;
  }
  select.onchange = () => { last = ""; state.every = []; show(); refresh(); };
  mode.onclick = next;
  measure.onclick = measureAll;
  if (chosen) { select.value = chosen; state.mode = "all"; }
  show(); refresh();
  if (chosen) box.scrollIntoView();
}
