// A report that was made, shown as it is; where it is not made yet, the page looks again.

import { ask } from "./api.js";

const LOOK_AGAIN_MS = 5000;

async function show() {
  try {
    const text = await (await ask("/api/report")).text();
    const report = new DOMParser().parseFromString(text, "text/html");
    document.replaceChild(document.adoptNode(report.documentElement), document.documentElement);
  } catch (problem) {
    document.getElementById("told").textContent = problem.message;
    if (problem.status === 404) setTimeout(show, LOOK_AGAIN_MS);
  }
}

show();
