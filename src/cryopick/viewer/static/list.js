// The list of micrographs: about fifteen rows of elements that move as it scrolls, whatever the number of micrographs.

import { bitmap } from "./api.js";

const ROW_PX = 60, MOST_PX = 8_000_000, STILL_MS = 80;
const SORTS = {
  name: ["name", (t, i) => t.name[i]],
  few: ["fewest picks", (t, i) => t.kept[i] ?? -1],
  many: ["most picks", (t, i) => -(t.kept[i] ?? -1)],
  right: ["least right", (t, i) => t.expected_right[i] ?? 2],
  edited: ["most edited", (t, i) => -t.edited[i]],
  differ: ["most different", (t, i) => -(t.differ?.[i] ?? -1)],
};
const FILTERS = {
  all: ["all", () => true],
  todo: ["to look at", (t, i) => t.verdict[i] === "none" && !t.edited[i] && !t.complete[i]],
  edited: ["edited", (t, i) => t.edited[i] > 0 || t.complete[i]],
  good: ["good", (t, i) => t.verdict[i] === "good"],
  bad: ["bad", (t, i) => t.verdict[i] === "bad"],
  warned: ["with warnings", (t, i) => t.warnings[i].length > 0 || t.failed[i] || (t.told[i] && !t.told[i].startsWith("good"))],
};

export class List {
  constructor(box, height, search, sort, filter, open) {
    Object.assign(this, { box, height, search, sort, filter, open, table: null, order: [], place: new Map(), current: -1, rows: [], thumbs: new Map() });
    for (const [select, options] of [[sort, SORTS], [filter, FILTERS]]) {
      for (const [value, [text]] of Object.entries(options)) {
        const option = document.createElement("option");
        Object.assign(option, { value, textContent: text });
        select.append(option);
      }
      select.addEventListener("change", () => this.arrange());
    }
    search.addEventListener("input", () => this.arrange());
    box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("click", (event) => { const row = event.target.closest(".row"); if (row) this.open(Number(row.dataset.number)); });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step !== undefined) { event.preventDefault(); event.stopPropagation(); this.go(step); }
      else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey && /[\w.-]/.test(event.key)) {
        event.stopPropagation();
        clearTimeout(this.typing);
        this.typed = (this.typed ?? "") + event.key.toLowerCase();
        this.typing = setTimeout(() => { this.typed = ""; }, 900);
        const found = this.order.find((i) => this.table.name[i].toLowerCase().split("/").pop().startsWith(this.typed)) ?? this.order.find((i) => this.table.name[i].toLowerCase().includes(this.typed));
        if (found !== undefined) this.open(found);
      }
    });
  }
  setTable(table) { this.table = table; this.arrange(); }
  arrange() {
    if (!this.table) return;
    const t = this.table, wanted = this.search.value.trim().toLowerCase(), passes = FILTERS[this.filter.value]?.[1] ?? FILTERS.all[1], by = SORTS[this.sort.value]?.[1] ?? SORTS.name[1];
    const order = [];
    for (let i = 0; i < t.name.length; i++) if ((!wanted || t.name[i].toLowerCase().includes(wanted)) && passes(t, i)) order.push(i);
    const keys = t.name.map((_, i) => by(t, i)), compare = new Intl.Collator(undefined, { numeric: true }).compare;
    order.sort((a, b) => (typeof keys[a] === "string" ? compare(keys[a], keys[b]) : keys[a] - keys[b]) || a - b);
    this.order = order;
    this.place = new Map(order.map((i, at) => [i, at]));
    const full = order.length * ROW_PX;
    this.squeeze = Math.max(1, full / MOST_PX);
    this.height.style.height = `${full / this.squeeze}px`;
    this.draw();
  }
  neighbour(step) {
    const at = this.place.get(this.current) ?? -1;
    return this.order[at + step];
  }
  go(step) {
    if (!this.order.length) return;
    const at = this.place.get(this.current) ?? 0, next = Math.min(this.order.length - 1, Math.max(0, Number.isFinite(step) ? at + step : step > 0 ? this.order.length - 1 : 0));
    this.open(this.order[next]);
  }
  show(number) {
    this.current = number;
    const at = this.place.get(number);
    if (at !== undefined) {
      const top = at * ROW_PX / this.squeeze, view = this.box.clientHeight;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + ROW_PX > this.box.scrollTop + view) this.box.scrollTop = top + ROW_PX - view;
    }
    this.draw();
  }
  draw() {
    const t = this.table;
    if (!t) return;
    const visible = Math.ceil(this.box.clientHeight / ROW_PX) + 2;
    while (this.rows.length < visible) this.rows.push(this.makeRow());
    const top = this.box.scrollTop, first = Math.max(0, Math.floor(top * this.squeeze / ROW_PX));
    const shift = this.squeeze > 1 ? top - first * ROW_PX : 0;
    // a place in the list stays with its element as long as it is in sight, so that scrolling by a row changes one
    for (let at = first; at < first + this.rows.length; at++) {
      const row = this.rows[at % this.rows.length], i = this.order[at];
      row.hidden = i === undefined || at >= first + visible;
      if (row.hidden) { row.id = ""; row.shown = ""; continue; }
      const y = at * ROW_PX + shift;
      if (row.y !== y) { row.y = y; row.style.transform = `translateY(${y}px)`; }
      this.fill(row, i, at);
      this.paint(row, i);
    }
    this.box.setAttribute("aria-activedescendant", this.place.has(this.current) ? `micrograph-${this.current}` : "");
    clearTimeout(this.still);
    this.still = setTimeout(() => this.fetchThumbs(), STILL_MS);
    let empty = this.box.querySelector(".empty");
    if (!this.order.length && !empty) { empty = document.createElement("p"); empty.className = "empty"; this.box.append(empty); }
    if (empty) { empty.hidden = this.order.length > 0; empty.textContent = t.name.length ? "no micrograph passes the filter" : "no micrograph is finished yet; the list grows by itself"; }
  }
  fill(row, i, at) {
    const t = this.table, right = t.expected_right[i], told = t.told[i];
    const marks = [t.edited[i] ? `✎${t.edited[i]}` : "", t.complete[i] ? "complete" : "", t.warnings[i].length || (told && !told.startsWith("good")) ? "!" : ""].filter(Boolean).join(" ");
    const facts = t.failed[i] ? "not picked" : `${t.kept[i] ?? "…"} of ${t.candidates[i] ?? "?"}${right === null || right === undefined ? "" : ` · ${Math.round(100 * right)} %`}`;
    const flags = `${{ good: "✓ good", bad: "✕ bad", none: "" }[t.verdict[i]]} ${marks}`;
    const shown = `${i}/${at}/${this.order.length}/${t.stamp[i]}/${i === this.current}/${facts}/${flags}`;
    if (row.shown === shown) return;
    row.shown = shown;
    if (row.dataset.number !== String(i)) {
      row.dataset.number = String(i); row.has = null;
      row.picture.getContext("2d").clearRect(0, 0, 96, 96);
    }
    row.id = `micrograph-${i}`;
    row.setAttribute("aria-setsize", this.order.length);
    row.setAttribute("aria-posinset", at + 1);
    row.setAttribute("aria-selected", i === this.current);
    row.name.textContent = t.name[i];
    row.title = t.failed[i] ? `${t.name[i]}\n${t.failed[i]}` : [t.name[i], told, ...t.warnings[i]].filter(Boolean).join("\n");
    row.facts.textContent = facts;
    row.flags.textContent = flags;
    row.flags.className = `facts flag-${t.verdict[i]}`;
  }
  makeRow() {
    const row = document.createElement("div"), texts = document.createElement("div");
    row.className = "row";
    row.setAttribute("role", "option");
    row.picture = Object.assign(document.createElement("canvas"), { width: 96, height: 96 });
    row.name = Object.assign(document.createElement("div"), { className: "name" });
    row.facts = Object.assign(document.createElement("div"), { className: "facts" });
    row.flags = Object.assign(document.createElement("div"), { className: "facts" });
    texts.className = "texts";
    texts.append(row.name, row.facts, row.flags);
    row.append(row.picture, texts);
    this.box.append(row);
    return row;
  }
  paint(row, i) {
    const key = `${i}/${this.table.stamp[i]}`, picture = this.thumbs.get(key);
    if (!picture || row.has === key) return;
    row.has = key;
    const g = row.picture.getContext("2d");
    g.clearRect(0, 0, 96, 96);
    g.drawImage(picture, (96 - picture.width) / 2, (96 - picture.height) / 2);
  }
  async fetchThumbs() {
    this.aborter?.abort();
    const aborter = this.aborter = new AbortController();
    const wanted = this.rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.number)).filter((i) => !this.thumbs.has(`${i}/${this.table.stamp[i]}`) && !this.table.failed[i]);
    const one = async () => {
      for (let i = wanted.shift(); i !== undefined && !aborter.signal.aborted; i = wanted.shift()) {
        try {
          const { picture } = await bitmap(`/api/r/0/m/${i}/thumb?v=${this.table.stamp[i]}`, { signal: aborter.signal, priority: "low" });
          if (this.thumbs.size > 600) this.thumbs.delete(this.thumbs.keys().next().value);
          this.thumbs.set(`${i}/${this.table.stamp[i]}`, picture);
          const row = this.rows.find((r) => !r.hidden && r.dataset.number === String(i));
          if (row) this.paint(row, i);
        } catch { /* the row stays grey; the micrograph's own page says why */ }
      }
    };
    await Promise.all([one(), one()]);
  }
}
