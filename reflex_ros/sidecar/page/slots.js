// SPDX-License-Identifier: Apache-2.0
// Two policies: how they stand, and who gets the next episodes.

import { byId, clock, make, setText } from "./panels.js";

const VERDICTS = {
  healthy: "", "drain-a": "A is out, B answers", "drain-b": "B is out, A answers", degraded: "neither answers",
};
let touched = false; // the slider is being moved: do not move it back
let newest = null; // the newest split received
let drawn = "";

/** Show what GET /policies says, or hide the panel where there is one policy. onlyLook: nothing can be changed. */
export function slots(found, onlyLook) {
  const two = found?.mode === "two";
  byId("slots").hidden = !two;
  if (!two) return;
  setText("verdict", VERDICTS[found.verdict] ?? found.verdict);
  byId("split-form").hidden = onlyLook;
  if (found.split !== newest) touched = false; // it was changed elsewhere: where the slider stood means nothing any more
  newest = found.split;
  if (!touched) showSplit(found.split);
  const now = JSON.stringify(found);
  if (now === drawn) return;
  drawn = now;
  byId("slot-cards").replaceChildren(card("a", found.split, found.slots.a), card("b", 100 - found.split, found.slots.b));
  byId("changes").replaceChildren(...notes(found));
}

function showSplit(split) {
  byId("split").value = split;
  setText("split-share", `${split} %`);
}

function card(name, share, slot) {
  const out = slot.breaker !== "closed";
  return make("div", { name: "slot" },
    make("b", { text: `${name.toUpperCase()} ${share} %` }),
    make("div", { text: slot.model_version || slot.model_id }),
    make("div", { level: out ? "bad" : "", text: `${out ? "■ " : ""}breaker ${slot.breaker}, ${slot.consecutive_failures} failed in a row` }),
    make("div", { text: `${slot.successes} of ${slot.episodes} episodes succeeded` }));
}

function notes({ monitor, shadow, history }) {
  const lines = [];
  if (monitor?.watching) lines.push(make("li", { level: "warn", text: `Watching ${monitor.watching.toUpperCase()} after the change.` }));
  if (monitor?.last) lines.push(make("li", { level: "warn", text: monitor.last }));
  if (shadow) lines.push(make("li", { text: `Shadow: ${Object.entries(shadow).map(([name, value]) => `${name} ${value}`).join(", ")}` }));
  for (const change of [...(history ?? [])].reverse()) {
    const who = [clock(change.at_s), change.by, change.reason].filter(Boolean).join(" · ");
    lines.push(make("li", { text: `${change.kind}: A ${change.from_split} % → ${change.to_split} %` }, make("small", { text: who })));
  }
  return lines;
}

/** Wire the controls. change(body) posts to /policies and resolves when it is done. */
export function wireSlots(change, twice) {
  const settle = async (body) => {
    await change(body);
    touched = false;
  };
  byId("split").addEventListener("input", (event) => {
    touched = true;
    setText("split-share", `${event.target.value} % (not set yet)`);
  });
  byId("split-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await settle({ split: Number(byId("split").value) });
  });
  twice(byId("promote-a"), () => settle({ promote: "a" }));
  twice(byId("promote-b"), () => settle({ promote: "b" }));
  twice(byId("rollback"), () => settle({ rollback: true }));
}
