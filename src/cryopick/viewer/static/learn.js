// What goes on beside the page: exports, and making a threshold that of the run.

import { json, Problem } from "./api.js";
import { app, closeButton, dialog, make, readTable, refreshCut, say, trouble } from "./app.js";

const cutBody = () => ({ threshold: app.cut.isOwn ? null : app.cut.threshold, low: app.cut.low, high: Number.isFinite(app.cut.high) ? app.cut.high : null });

export function startLearning() {
  const actions = document.getElementById("actions");
  actions.prepend(make("button", { id: "export", textContent: "Export", title: "write the picks for RELION, cryoSPARC and other programs", disabled: Boolean(app.readOnly), onclick: exportDialog }));
  if (app.runs[0].is_run) actions.prepend(make("button", { id: "set-threshold", textContent: "Set threshold", title: "make this the threshold of the run, as cryopick rethreshold does", disabled: Boolean(app.readOnly), onclick: thresholdDialog }));
}

async function follow(number, told, progress) {
  for (;;) {
    const { jobs } = await json("/api/jobs"), job = jobs.find((one) => one.number === number);
    progress.max = Math.max(1, job.steps);
    progress.value = job.step;
    told.textContent = `${job.phase}${job.steps ? `, ${job.step} of ${job.steps}` : ""}`;
    if (!job.is_running) return job;
    await new Promise((done) => setTimeout(done, 300));
  }
}

async function exportDialog() {
  const { formats } = await json("/api/jobs").catch((error) => { trouble(error); return { formats: [] }; });
  if (!formats.length) return;
  const boxes = formats.filter((name) => name !== "star").map((name) => Object.assign(make("input", { type: "checkbox", value: name })));
  const told = make("p", { id: "export-told", role: "status" }), progress = make("progress", { hidden: true });
  progress.setAttribute("aria-label", "export");
  const bad = app.table.verdict.filter((one) => one === "bad").length;
  const start = make("button", { id: "export-start", textContent: "write" });
  start.onclick = async () => {
    start.disabled = true; progress.hidden = false; told.textContent = "writing ...";
    try {
      const { job } = await json("/api/export", { body: { ...cutBody(), formats: boxes.filter((box) => box.checked).map((box) => box.value) } });
      const done = await follow(job, told, progress), r = done.result;
      if (done.error) told.textContent = `not written: ${done.error}`;
      else told.textContent = `${r.particles.toLocaleString("en")} particles of ${r.micrographs.toLocaleString("en")} micrographs in ${r.folder} (${r.added} added, ${r.removed} removed${r.left_out_as_bad.length ? `, ${r.left_out_as_bad.length} bad micrographs left out` : ""}${r.outside ? `, ${r.outside} marks outside their micrographs left out` : ""}). RELION: ${r.relion}. cryoSPARC: ${r.folder}/particles.star`;
      document.documentElement.dataset.exported = done.error ? "failed" : String(r.particles);
    } catch (error) { told.textContent = `not written: ${error.message}`; }
    progress.hidden = true; start.disabled = false;
  };
  dialog("Export",
    make("p", { textContent: `The picks at this cut with your marks, for RELION (autopick.star, picks/) and cryoSPARC (particles.star)${bad ? `; ${bad} micrographs that you called bad are left out` : ""}. Nothing of the run changes.` }),
    make("fieldset", {}, make("legend", { textContent: "other formats too" }), ...boxes.map((box) => make("label", {}, box, ` ${box.value} `))), progress, told, make("div", { className: "buttons" }, start, closeButton()));
}

function thresholdDialog() {
  const run = app.runs[0], told = make("p", { role: "status" }), value = app.cut.isOwn ? null : app.cut.threshold;
  const set = async (threshold) => {
    told.textContent = "writing ...";
    try {
      const done = await json("/api/r/0/threshold", { body: { threshold } });
      Object.assign(run, { threshold: done.threshold });
      Object.assign(app.cut, { threshold: done.threshold, isOwn: true });
      await readTable();
      told.textContent = `the run keeps ${done.particles.toLocaleString("en")} particles at ${Number(done.threshold.toPrecision(4))}; its tables and report are written anew`;
      say(told.textContent);
      refreshCut();
    } catch (error) { told.textContent = error instanceof Problem ? error.message : String(error); }
  };
  dialog("Threshold of the run",
    make("p", { textContent: value === null ? "The slider stands at the run's own threshold." : `Writes the tables and the report of the run anew at ${Number(value.toPrecision(4))}, without your marks: as cryopick rethreshold does.` }), told,
    make("div", { className: "buttons" }, make("button", { textContent: "set", disabled: value === null, onclick: () => set(value) }), make("button", { textContent: "back to the run's first", onclick: () => set(null) }), closeButton()));
}

