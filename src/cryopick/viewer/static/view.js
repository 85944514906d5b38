// One transform between the micrograph and the screen for both canvases, and the pointer that moves it.
// (0, 0) is the centre of the first pixel: a picture spans -0.5 to its width - 0.5.

export class View {
  constructor(stage, canvases, changed) {
    Object.assign(this, { stage, canvases, changed, scale: 1, left: 0, top: 0, width: 1, height: 1, ratio: 1, image: [1, 1], isFitted: true });
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }
  resize() {
    const box = this.stage.getBoundingClientRect();
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.width = Math.max(1, box.width);
    this.height = Math.max(1, box.height);
    for (const canvas of this.canvases) {
      const w = Math.round(this.width * this.ratio), h = Math.round(this.height * this.ratio);
      if (canvas.width !== w) canvas.width = w;
      if (canvas.height !== h) canvas.height = h;
    }
    if (this.isFitted) this.fit(); else this.changed();
  }
  setImage(width, height) {
    const isSame = this.image[0] === width && this.image[1] === height;
    this.image = [width, height];
    if (!isSame || this.isFitted) this.fit();
  }
  fit() {
    const [w, h] = this.image;
    this.scale = Math.min(this.width / w, this.height / h);
    this.left = w / 2 - this.width / this.scale / 2;
    this.top = h / 2 - this.height / this.scale / 2;
    this.isFitted = true;
    this.changed();
  }
  // Whole device pixels at the corner, so that pixels seen large stand exactly where their rings are.
  snap() {
    const k = this.scale * this.ratio;
    this.left = Math.round(this.left * k) / k;
    this.top = Math.round(this.top * k) / k;
  }
  toScreen(x, y) { return [(x + 0.5 - this.left) * this.scale, (y + 0.5 - this.top) * this.scale]; }
  toImage(sx, sy) { return [sx / this.scale + this.left - 0.5, sy / this.scale + this.top - 0.5]; }
  zoom(factor, sx = this.width / 2, sy = this.height / 2) {
    const least = Math.min(this.width / this.image[0], this.height / this.image[1]) / 2;
    const scale = Math.min(64, Math.max(least, this.scale * factor));
    this.left += sx / this.scale - sx / scale;
    this.top += sy / this.scale - sy / scale;
    this.scale = scale;
    this.isFitted = false;
    this.changed();
  }
  pan(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.isFitted = false;
    this.changed();
  }
  show(x, y) {
    const [sx, sy] = this.toScreen(x, y);
    if (sx < 40 || sy < 40 || sx > this.width - 40 || sy > this.height - 40) {
      this.left = x + 0.5 - this.width / this.scale / 2;
      this.top = y + 0.5 - this.height / this.scale / 2;
      this.isFitted = false;
      this.changed();
    }
  }
}

// Pans with the middle button, Space or the hand; pinches with two fingers; gives everything else to the tool.
export function listen(view, target, tool, isPanning) {
  const at = (event) => { const box = target.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const touches = new Map();
  let panning = null;
  target.addEventListener("pointerdown", (event) => {
    target.focus({ preventScroll: true });
    target.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, at(event));
    if (touches.size === 2) { tool.cancel(); panning = null; return; }
    if (event.button === 1 || isPanning()) { panning = at(event); event.preventDefault(); }
    else if (event.button === 0) tool.down(...at(event), event);
  });
  // every place that the pointer passed: a busy browser tells of several moves at once, and a stroke has them all
  const wayOf = (event) => { const way = event.getCoalescedEvents?.() ?? []; return way.length ? way : [event]; };
  target.addEventListener("pointermove", (event) => {
    const now = at(event);
    if (touches.size === 2 && touches.has(event.pointerId)) {
      const before = [...touches.values()].map((p) => [...p]);
      touches.set(event.pointerId, now);
      const after = [...touches.values()];
      const span = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]), middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      const [m0, m1] = [middle(before), middle(after)];
      view.pan(m1[0] - m0[0], m1[1] - m0[1]);
      view.zoom(span(after) / Math.max(1, span(before)), ...m1);
      return;
    }
    if (touches.has(event.pointerId)) touches.set(event.pointerId, now);
    if (panning) { view.pan(now[0] - panning[0], now[1] - panning[1]); panning = now; }
    else for (const one of wayOf(event)) tool.move(...at(one), event);
  });
  const end = (event) => {
    touches.delete(event.pointerId);
    if (panning) panning = null; else if (event.type === "pointerup" && event.button === 0) tool.up(...at(event), event);
    if (event.type === "pointercancel") tool.cancel();
  };
  target.addEventListener("pointerup", end);
  target.addEventListener("pointercancel", end);
  target.addEventListener("pointerleave", () => tool.leave());
  target.addEventListener("dblclick", (event) => tool.twice(...at(event), event));
  target.addEventListener("wheel", (event) => {
    event.preventDefault();
    const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    view.zoom(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.0016)), ...at(event));
  }, { passive: false });
}
