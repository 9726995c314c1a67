// SPDX-License-Identifier: Apache-2.0
// What an operator does beside stop and resume: an instruction, the start and the end of an episode.

import { byId, setText } from "./panels.js";

let robot = null; // as of the newest state
let episode = ""; // the one that an outcome is for
let stops = 0; // how often STOP was pressed: what was pressed before it resumes nothing after it

/** STOP was pressed here. */
export function noteStop() {
  stops += 1;
}

/** Show what can be done now. act: false where only STOP acts. */
export function showOperate(state, mayAct) {
  robot = state.robot;
  episode = robot?.episode_id || state.request?.episode_id || "";
  const active = robot !== null && robot.node_state === "active";
  byId("operate").hidden = !mayAct || (robot === null && !episode);
  byId("instruct-form").hidden = byId("start-episode").hidden = robot === null;
  byId("send-instruction").disabled = byId("start-episode").disabled = !active;
  byId("instruction-text").disabled = !active;
  byId("end-success").disabled = byId("end-failure").disabled = !episode || (robot !== null && !active);
  const label = robot === null ? "" : "End: ";
  setText("end-success", `${label}${label ? "success" : "Success"}`);
  setText("end-failure", `${label}${label ? "failure" : "Failure"}`);
  setText("operate-note", note(active));
}

/** Without a connection nothing can be sent; STOP is tried all the same. */
export function disableOperate() {
  for (const control of byId("operate").querySelectorAll("button:not(.term), input")) control.disabled = true;
}

function note(active) {
  if (robot === null) return `The outcome is stored for episode ${episode}.`;
  if (!active) return `The node is ${robot.node_state}: activate it first.`;
  return "Start begins a new episode and resumes. End stores the outcome, and the robot holds.";
}

/** Wire the controls. act: posts a document; send: posts one and shows the result; say: shows a sentence. */
export function wireOperate({ act, send, say, twice }) {
  const field = byId("instruction-text");
  const instruct = async () => {
    const text = field.value.trim();
    if (!text) return say("INSTRUCTION NOT SENT: type one first", "bad");
    const sent = await send("/instruction", { instruction: text }, "INSTRUCTION", "Sent");
    if (sent) field.value = "";
  };
  twice(byId("send-instruction"), instruct);
  byId("instruct-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("send-instruction").click();
  });
  twice(byId("start-episode"), async () => {
    const resumes = robot?.stopped; // as it was when this was pressed: a stop that comes later stays
    const before = stops;
    const begun = await act("/episodes", {});
    if (!begun.ok) return say(`START DID NOT HAPPEN: ${begun.text || `the server answers ${begun.status}`}`, "bad");
    if (stops !== before) return say(`Episode ${begun.text} began, and the robot stays stopped`, "bad");
    if (resumes && !(await send("/resume", undefined, "RESUME", "Resumed"))) return;
    say(`Episode ${begun.text} began`, "good");
  });
  const end = async (success) => {
    const ended = episode;
    if (robot !== null && !robot.stopped && !(await send("/stop", undefined, "STOP", "Stopped"))) return;
    const word = success ? "success" : "failure";
    await send(`/episodes/${encodeURIComponent(ended)}/outcome`, { success }, "OUTCOME", `Stored for ${ended}: ${word}`);
  };
  byId("end-success").addEventListener("click", () => end(true));
  byId("end-failure").addEventListener("click", () => end(false));
}
