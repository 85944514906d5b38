// What goes on beside the page: exports, and making a threshold that of the run.

import { json, Problem } from "./api.js";
import { app, banner, closeButton, dialog, listeners, make, readTable, refreshCut, say, trouble } from "./app.js";
import { drawLines } from "./charts.js";
import { startCompare } from "./compare.js";

const cutBody = () => ({ threshold: app.cut.isOwn ? null : app.cut.threshold, low: app.cut.low, high: Number.isFinite(app.cut.high) ? app.cut.high : null });

export function startLearning() {
  const actions = document.getElementById("actions");
  if (app.runs[0].can_learn) {
    actions.prepend(make("button", { id: "learn", textContent: "Learn", title: "teach the picker what you marked", disabled: Boolean(app.readOnly), onclick: learnDialog }));
    listeners.push((changes) => { if (changes.some(([what]) => what === "jobs")) showLearnings(); });
    document.addEventListener("scheme", () => showLearnings());
    showLearnings();
  }
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


async function learnDialog() {
  const told = make("div", { id: "learn-told" }), confident = make("input", { type: "checkbox", checked: true, id: "learn-confident" }), steps = make("input", { id: "learn-steps", inputMode: "numeric", size: 6, value: "60" });
  const start = make("button", { id: "learn-start", textContent: "learn", disabled: true });
  const plan = async () => {
    told.textContent = "counting ...";
    try {
      const p = await json("/api/learn/plan", { body: { ...cutBody(), confident: confident.checked } });
      const text = (tag, content) => make(tag, { textContent: content });
      told.replaceChildren(
        text("p", `${p.particles} particles teach (${p.confident} of them picks that are surely right) and ${p.background} places without one, on ${p.micrographs} ${p.micrographs === 1 ? "micrograph" : "micrographs"}${p.complete.length ? `; ${p.complete.length} are complete, where all else is background` : ""}.`),
        text("p", p.validates.length ? p.micrographs > 1 ? `A fifth of them judges and does not teach: ${p.validates.slice(0, 6).join(", ")}${p.validates.length > 6 ? ` and ${p.validates.length - 6} more` : ""}.` : `The lower rows of ${p.validates[0]} judge and do not teach.` : ""),
        text("p", p.background && !p.background_teaches ? `Removed picks and junk teach ${p.picker} only on complete micrographs (k): of the pickers, general alone learns from single places without a particle.` : ""),
        text("p", `It starts from ${p.weights}.`),
        ...p.doubts.map((one) => text("p", `Mind: ${one}.`)), ...p.problems.map((one) => text("p", `Not possible: ${one}.`)));
      start.disabled = p.problems.length > 0;
    } catch (error) { told.textContent = `not possible: ${error.message}`; }
  };
  confident.onchange = plan;
  start.onclick = async () => {
    start.disabled = true;
    try {
      await json("/api/learn", { body: { ...cutBody(), confident: confident.checked, steps: Number(steps.value), ...(app.learnSettings ? { settings: app.learnSettings } : {}) } });
      document.getElementById("dialog").close();
      showLearnings();
      document.getElementById("learning").scrollIntoView();
    } catch (error) { told.append(make("p", { textContent: `not begun: ${error.message}` })); start.disabled = false; }
  };
  dialog("Learn from your marks", told, make("p", {}, make("label", {}, confident, " picks that are expected to be right to 95 % teach too")),
    make("details", {}, make("summary", { textContent: "more" }), make("label", {}, "steps ", steps)),
    make("p", { textContent: "Takes minutes, goes on when this page or the viewer is closed, and keeps the old weights unless your labels say that the new ones are better." }),
    make("div", { className: "buttons" }, start, closeButton()));
  await plan();
}

let timer, isAsking = false;
export async function showLearnings() {
  if (isAsking) return;
  isAsking = true;
  clearTimeout(timer);
  try {
    const { learnings } = await json("/api/learn");
    draw(learnings);
    if (learnings.some((one) => one.is_running || one.after_phase === "picking")) timer = setTimeout(showLearnings, 1500);
  } catch (error) { trouble(error); } finally { isAsking = false; }
}

const post = async (path) => { try { return await json(path, { body: {} }); } catch (error) { banner(error.message, [["close", () => banner("")]]); return null; } };

function judgedWords(j) {
  if (j.why) return `No F1: ${j.why}.`;
  const told = ([f1, low, high]) => f1 === null ? "unknown" : `${f1.toFixed(3)}${low === null ? "" : ` (${low.toFixed(3)} to ${high.toFixed(3)}, 95 %)`}`;
  const noInterval = j.before[1] === null ? "; one micrograph alone gives no interval" : "";
  return `F1 of the picks on the complete micrographs that judge (${j.micrographs.join(", ")}): ${told(j.before)} before, ${told(j.after)} after${noInterval}.`;
}

function draw(learnings) {
  const box = document.getElementById("learning"), one = learnings[learnings.length - 1];
  box.hidden = !one;
  if (!one) return;
  const seconds = Math.round(Date.now() / 1000 - one.started), parts = [make("h2", { textContent: `Learning ${one.number}` })];
  document.documentElement.dataset.learning = one.is_running ? "running" : one.phase;
  const judges = one.judges.length ? `what judges, ${one.judges.slice(0, 4).join(", ")}${one.judges.length > 4 ? ", ..." : ""}` : "the marked micrographs that judge";
  const words = {
    better: `Better: a score of ${one.before?.toFixed(3)} before, ${one.after?.toFixed(3)} after, on ${judges}.`,
    "not better": `Your labels did not improve it (it stays at ${one.before?.toFixed(3)} on ${judges}); the old weights stay.`,
    failed: `Nothing came of it: ${one.error}. The old weights stay.`,
  };
  parts.push(make("p", { id: "learn-phase", role: "status", textContent: one.is_running ? `${one.phase}, ${Math.floor(seconds / 60)} min ${seconds % 60} s; ${one.particles} particles and ${one.background} places without one teach` : words[one.phase] }));
  if (one.is_running) parts.push(Object.assign(make("progress", { max: one.steps, ariaLabel: "learning" }), one.step ? { value: one.step } : {}), make("button", { textContent: "stop", onclick: async () => { await post(`/api/learn/${one.number}/stop`); showLearnings(); } }));
  if (!one.is_running && one.phase === "failed" && one.step > 0) parts.push(make("button", { textContent: "go on", onclick: async () => { await post(`/api/learn/${one.number}/resume`); showLearnings(); } }));
  const curve = make("canvas", { className: "curve", role: "img", ariaLabel: "scores while learning" }), has = Object.values(one.validation).some((points) => points.length);
  if (has) parts.push(curve);
  if (one.is_better) {
    const label = { "": "show before and after", picking: "picking a few micrographs ...", ready: "compare before and after" }[one.after_phase];
    parts.push(make("button", { id: "learn-after", textContent: label, disabled: one.after_phase === "picking", onclick: async () => {
      const found = await post(`/api/learn/${one.number}/after`);
      if (found?.run !== null && found?.run !== undefined) { const facts = await json("/api/runs"); app.runs = facts.runs; startCompare(facts, String(found.run)); } else showLearnings();
    } }), make("button", { id: "learn-pick", textContent: "pick all with these weights", onclick: async () => { const found = await post(`/api/learn/${one.number}/pick`); if (found) banner(`picking into ${found.folder}; look at it with: cryopick view ${found.folder}`, [["close", () => banner("")]]); } }));
  }
  if (one.judged) parts.push(make("p", { id: "learn-judged", textContent: judgedWords(one.judged) }));
  parts.push(make("details", {}, make("summary", { textContent: "log" }), make("pre", { className: "log", textContent: one.log })));
  box.replaceChildren(...parts);
  if (has) drawLines(curve, one.validation, "steps");
}
