// SPDX-License-Identifier: Apache-2.0
// Explanations of the terms on the page: each term is a button that opens its explanation, by mouse, touch or keyboard.

const TERMS = {
  instruction: ["instruction", "The task in words, as the policy reads it together with the camera pictures. It comes from the topic, a goal, an HTTP request or this page."],
  policy: ["policy", "The trained model that turns camera pictures, joint positions and the instruction into motion."],
  policies: ["Policies", "Two policies serve side by side, A and B. Each new episode goes to one of them; the split is the share of A."],
  episode: ["episode", "One attempt at a task, with an id. Recordings, outcomes and the choice between two policies go by episode."],
  robot: ["robot", "The name of this robot: the setting robot_id."],
  checklist: ["Waiting for", "A chunk is made of all of these. The first one that is missing keeps the robot waiting; nothing moves meanwhile."],
  chunk: ["Chunk", "The next few seconds of motion, one row per control period and one plot per joint. Each plot is zoomed to the motion; a limit is drawn where the motion comes near it."],
  served: ["served", "What the robot gets, after the guard."],
  raw: ["raw", "What the model wanted. It is drawn only where the guard changed it."],
  limit: ["limit", "The end of a joint's allowed range, from the embodiment and the safety file. The guard lets nothing beyond it."],
  latency: ["Latency", "The time from a request to its chunk. Line: the mean of each second. Area: the slowest answer of each second."],
  last: ["last", "The latency of the newest answer."],
  p50: ["p50", "Half of the newest 1024 answers were faster than this."],
  p95: ["p95", "95 of 100 of the newest 1024 answers were faster than this."],
  p99: ["p99", "99 of 100 of the newest 1024 answers were faster than this."],
  deadline: ["deadline", "The longest that an answer may take (deadline_ms). At the deadline the last good chunk continues, else the robot holds."],
  misses: ["misses", "How often the deadline passed before the model answered."],
  objective: ["objective", "The latency that is aimed for (slo). While it is missed, slo_mode decides: fewer denoise steps, only a log line, or a refusal."],
  guard: ["Guard", "Checks every chunk against the limits of position, speed and acceleration before the robot gets it, and changes what breaks one."],
  "in a row": ["clamps in a row", "Chunks of the robot that had to be changed, one after the other. At the maximum the guard trips: the robot holds until it is reset."],
  violations: ["violations", "Limits that chunks would have broken since the server started; one chunk can break several."],
  clamped: ["clamped", "Answers in which the guard changed at least one number."],
  fallbacks: ["fallbacks", "Answers that did not come from the policy in time: the last good chunk, another server's, or a hold."],
  holds: ["holds of the robot", "How often the node let the robot hold without an answer of the policy: at a stop, at the end of an episode, without fresh data. Answers that are holds are HELD in traces."],
  refused: ["refused observations", "Observations that were too old, incomplete or implausible, so that nothing was inferred from them."],
  discarded: ["chunks thrown away", "Chunks that came too late: the episode, the clock or the robot's state had changed."],
  cache: ["cache hits", "How often the part of the network that reads picture and instruction was reused (prefix cache)."],
  rtc: ["RTC guided", "Real-time chunking: chunks that were joined to the one that is executed."],
  a2c2: ["A2C2 corrected", "Chunks whose rows a correction head adapted to the newest observation."],
  breaker: ["circuit breaker", "Closed: the model is used. Open: it failed several times in a row and is not tried until the cooldown is over."],
  "no chunk": ["requests without a chunk", "Requests that were refused or failed, by reason."],
  "chunks per second": ["chunks per second", "Answers per second, over the last 5 s."],
  "chunk lasts": ["chunk lasts", "How long the robot can still follow the chunk it has."],
  embodiment: ["embodiment", "The description of this robot: its joints, ranges, speeds and rates."],
  "runs on": ["runs on", "How the model is executed: one graph, a prefix and a denoise loop, or another server."],
  age: ["age", "How long ago the newest message of this stream was stamped."],
  mode: ["mode", "What the guard does with a chunk that breaks a limit: clip the joint, scale the whole motion, or reject the chunk."],
  recorders: ["Recorders", "What is written to disk: traces, bags, the audit log. Lost: records that were dropped because the disk was too slow."],
  concerns: ["Concerns", "The content of /diagnostics: one line per part of the node, good, warning or error."],
  settings: ["Settings", "Live: may change while serving. Fixed: takes effect when the node is configured again."],
};
const STATES = {
  READY: "The policy serves and the robot may move.",
  WAITING: "Something is missing before the robot may move; the page lists what.",
  HOLDING: "The robot stands where it is, because no chunk may be executed; it goes on by itself once the reason is gone.",
  STOPPED: "A person has stopped the robot; it holds until Resume is pressed.",
  TRIPPED: "The guard had to change too many chunks in a row; the robot holds until the guard is reset.",
  FAILED: "The policy could not be loaded or the node could not be activated.",
  "NO CONNECTION": "Nothing was received for 3 s; what is shown is old.",
  "KEY NEEDED": "This robot is shown only to those who have its API key.",
};

/** A button with the name of a term, which opens its explanation; label: another text for it. */
export function term(key, label) {
  const [name] = TERMS[key];
  const button = document.createElement("button");
  button.type = "button";
  button.className = "term";
  button.textContent = label ?? name;
  button.setAttribute("aria-describedby", `term-${slug(key)}`);
  button.addEventListener("click", () => explain(button, key));
  return button;
}

export function isTerm(key) {
  return Object.hasOwn(TERMS, key);
}

function slug(key) {
  return key.replaceAll(" ", "-");
}

/** Open the explanation beside the button, inside the window. */
function explain(button, key) {
  const box = document.getElementById("explain");
  const [name, text] = TERMS[key];
  document.getElementById("explain-name").textContent = name;
  document.getElementById("explain-text").textContent = text;
  if (!box.matches(":popover-open")) box.showPopover();
  const at = button.getBoundingClientRect();
  const left = Math.min(Math.max(at.left, 8), innerWidth - box.offsetWidth - 8);
  const below = at.bottom + 8;
  const top = below + box.offsetHeight > innerHeight ? Math.max(at.top - box.offsetHeight - 8, 8) : below;
  box.style.left = `${left}px`;
  box.style.top = `${top}px`;
}

/** Put the terms into the elements that name one, and all of them into the glossary. */
export function placeTerms() {
  for (const element of document.querySelectorAll("[data-term]")) element.append(term(element.dataset.term));
  const list = document.getElementById("glossary");
  const entries = [
    ...Object.entries(STATES).map(([name, text]) => [name, text, ""]),
    ...Object.entries(TERMS).map(([key, [name, text]]) => [name, text, `term-${slug(key)}`]),
  ];
  for (const [name, text, id] of entries) {
    const group = document.createElement("div");
    const title = document.createElement("dt");
    title.textContent = name;
    const body = document.createElement("dd");
    body.textContent = text;
    if (id) body.id = id;
    group.append(title, body);
    list.append(group);
  }
}
