// SPDX-License-Identifier: Apache-2.0
// From the state document to what is seen. Words that others wrote (instructions, ids) go in by textContent alone.

import { JointChart, draw, number } from "./charts.js";
import { histogram, timeline } from "./latency.js";
import { isTerm, term } from "./terms.js";

const LEVELS = ["good", "warn", "bad", "bad"]; // of /diagnostics: OK, WARN, ERROR, STALE
const SIGNS = { good: "✓", warn: "▲", bad: "■" };
const SHAPES = { // in a square of 24
  good: ["M4 13l5.5 5.5L20 6.5"],
  wait: ["M7 3h10M7 21h10M8 3v3.5l4 5.5-4 5.5V21M16 3v3.5L12 12l4 5.5V21"],
  hold: ["M8 5v14M16 5v14"],
  stop: ["M7.5 2.5h9l5 5v9l-5 5h-9l-5-5v-9z", "M8 12h8"],
  bad: ["M12 3L2 20.5h20z", "M12 9.5v5M12 17.3v.2"],
  lost: ["M5 5l14 14M19 5L5 19"],
};
const FRESH_MS = 6000;

const drawn = new Map(); // what a part of the page was last made from

export function byId(id) {
  return document.getElementById(id);
}

/** An element with a class, a level and text or children. */
export function make(tag, { name = "", level = "", text } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (level) element.classList.add(level);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

/** The children of an element, made anew only when what they are made from has changed. */
function fill(id, source, elements) {
  const now = JSON.stringify(source);
  if (drawn.get(id) === now) return;
  drawn.set(id, now);
  byId(id).replaceChildren(...elements(source));
}

/** The banner. level: good, wait, hold, stop, bad or lost. notes: what is unusual beside the word. */
export function showSummary({ level, word, sentence, todo = "", notes = [] }) {
  byId("top").dataset.level = level;
  fill("sign", level, () => SHAPES[level].map((d) => draw("path", { d })));
  setText("word", word);
  setText("sentence", sentence);
  setText("todo", todo);
  fill("notes", notes, (all) => all.map((text) => make("li", { text })));
}

export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function render(state) {
  showSummary(state.summary);
  const name = state.robot_id || "robot without a name";
  document.title = `${state.summary.word} · ${name}`;
  setText("version", `reflex ${state.reflex_version}`);
  what(state, name);
  now(state);
  latency(state.latency, state.now_s);
  checklist(state);
  chunk(state.chunk, state.robot);
  guard(state.guard);
  counters(state);
  recorders(state.recorders);
  findings(state.robot);
  settings(state.settings);
}

/** What it is doing now: instruction, policy, episode. */
function what({ robot, request, policy }, name) {
  const slot = request && !["prod", ""].includes(request.slot) ? ` (slot ${request.slot})` : "";
  const texts = {
    instruction: robot?.instruction || request?.instruction || "none so far",
    policy: policy ? `${policy}${slot}` : "none loaded",
    episode: robot?.episode_id || request?.episode_id || "none so far",
    "robot-id": name,
  };
  for (const [id, text] of Object.entries(texts)) {
    setText(id, text);
    byId(id).title = text;
  }
}

/** Names and values as a description list; an entry is [term or name, value, level, long, label]. */
function facts(id, entries) {
  fill(id, entries.filter((entry) => entry !== null), (all) =>
    all.map(([name, value, level = "", long = false, label = undefined]) =>
      make("div", { name: long ? "long" : "" },
        make("dt", {}, isTerm(name) ? term(name, label) : label ?? name), make("dd", { level, text: String(value) }))));
}

function now({ robot, chunks_per_s, model_version, embodiment, inference_mode }) {
  const ages = Object.entries(robot?.ages_ms ?? {});
  facts("now-facts", [
    ["chunks per second", chunks_per_s.toFixed(1)],
    robot === null ? null : ["chunk lasts", `${robot.remaining_s.toFixed(1)} s`],
    ...ages.map(([stream, age]) => ["age", `${age.toFixed(0)} ms`, "", false, `${stream === "camera camera" ? "camera" : stream} age`]),
    ["embodiment", embodiment || "–"],
    ["runs on", inference_mode || "–"],
    ["model", model_version || "none", "", true],
  ]);
}

let large = ""; // the camera that is shown large; empty: the first

export function pictures({ frames }) {
  const list = byId("cameras");
  if (frames.length > 1) list.dataset.many = "1";
  else delete list.dataset.many;
  const chosen = frames.some((frame) => frame.camera === large) ? large : frames[0]?.camera;
  if (frames.length === 0) {
    if (list.querySelector(".empty") === null) list.replaceChildren(noPicture());
    setText("camera-note", "");
    return;
  }
  for (const element of list.querySelectorAll(".empty")) element.remove();
  frames.forEach((frame, index) => {
    const figure = list.children[index] ?? list.appendChild(makeFigure());
    const [image, caption] = figure.children;
    const [name, enlarge] = caption.children;
    figure.classList.toggle("large", frame.camera === chosen);
    image.hidden = frame.jpeg === undefined;
    if (frame.jpeg !== undefined) image.src = `data:image/jpeg;base64,${frame.jpeg}`;
    image.alt = `camera ${frame.camera}`;
    name.textContent = frame.problem === undefined ? frame.camera : `${frame.camera}: ${frame.problem}`;
    caption.hidden = frames.length === 1 && frame.problem === undefined;
    enlarge.hidden = frame.camera === chosen;
    enlarge.setAttribute("aria-label", `Enlarge camera ${frame.camera}`);
    enlarge.onclick = () => {
      large = frame.camera;
      pictures({ frames });
    };
  });
  while (list.children.length > frames.length) list.lastElementChild.remove();
  setText("camera-note", frames.length === 1 ? "as the policy saw it last" : `${frames.length}, as the policy saw them last`);
}

function noPicture() {
  return make("p", { name: "empty", text: "No picture so far: it shows here with the first observation that the policy gets." });
}

function makeFigure() {
  const enlarge = make("button", { text: "Enlarge" });
  enlarge.type = "button";
  return make("figure", {}, make("img"), make("figcaption", {}, make("span"), enlarge));
}

/** While the robot waits for something, what that is: in the place of the chunk. */
function checklist({ summary, robot, chunk: found }) {
  const needs = robot?.needs ?? [];
  const waits = summary.word === "WAITING" && needs.length > 0;
  byId("checklist").hidden = !waits;
  byId("chunk").hidden = waits;
  byId("essentials").classList.toggle("waits", waits);
  if (byId("cameras").childElementCount === 0) byId("cameras").append(noPicture());
  fill("needs", [...needs].sort((one, other) => one.ok - other.ok), (all) => all.map(need));
  setText("chunk-note", found === null ? "" : byId("chunk-note").textContent);
}

function need({ kind, name, topic, ok, text }) {
  const mark = draw("svg", { class: `mark ${ok ? "good" : "warn"}`, viewBox: "0 0 24 24", role: "img", "aria-label": ok ? "there" : "missing" });
  mark.append(ok ? draw("path", { d: SHAPES.good[0] }) : draw("circle", { cx: 12, cy: 12, r: 8 }));
  const title = kind === "joints" ? "Joint states" : kind === "instruction" ? "Instruction" : `Camera ${name === "camera" ? "" : name}`.trim();
  return make("li", {}, mark, make("div", {},
    make("b", { text: title }), " ",
    make("span", { level: ok ? "good" : "warn", text: ok ? "there" : "missing" }),
    make("small", { text })),
  make("span"), ...(topic ? [make("code", { text: topic })] : []));
}

function latency(found, now_s) {
  const plot = byId("timeline");
  const { clientWidth: width, clientHeight: height } = plot;
  if (width > 0 && height > 0) {
    const source = [found.seconds, found.top_ms, found.deadline_ms, found.slo, Math.floor(now_s), width, height];
    fill("timeline", source, () => [timeline(found, now_s, width, height)]);
  }
  fill("histogram", [found.bars, found.top_ms, found.deadline_ms, found.slo?.threshold_ms, found.slo?.name], () => [histogram(found)]);
  const ms = (value) => (found.count ? `${number(value)} ms` : "–");
  setText("latency-note", found.count ? `last ${found.window_s / 60} min` : "no answer so far");
  facts("latency-facts", [
    ["last", ms(found.last_ms)],
    ["p50", ms(found.p50_ms)],
    ["p99", ms(found.p99_ms)],
    found.deadline_ms === null ? ["deadline", "none"] : ["misses", found.deadline_misses, found.deadline_misses ? "warn" : ""],
    found.slo === null ? null : ["objective", found.slo.violated ? "missed" : "met", found.slo.violated ? "warn" : ""],
  ]);
}

let charts = [];

function chunk(found, robot) {
  if (found === null) {
    fill("joints", "", () => [make("p", { name: "empty", text: "No chunk so far: the motion of each joint shows here with the first answer." })]);
    charts = [];
    return;
  }
  const names = found.joints.map((joint) => joint.name);
  fill("joints", names, () => {
    charts = names.map((name) => new JointChart(name));
    return charts.map((chart) => chart.element);
  });
  found.joints.forEach((joint, index) => charts[index].update(joint, found));
  const rows = found.joints[0]?.rows.length ?? 0;
  const held = robot !== null && (robot.stopped || robot.hold_reason !== "");
  const source = found.source === "policy" ? "from the policy" : `fallback: ${found.source.replaceAll("_", " ")}`;
  setText("chunk-note", held ? "not executed: the robot holds" : `${source} · ${rows} rows of ${number(1000 * found.dt_s)} ms`);
}

function guard(found) {
  byId("guard").hidden = byId("guard-counts").hidden = found === null;
  if (found === null) return;
  const state = found.tripped ? "TRIPPED" : found.enabled ? "watching" : "no limits known";
  const row = `${found.consecutive_clamps} of ${found.max_consecutive_clamps || "any"}`;
  setText("guard-note", `${state} · ${row} clamps in a row`);
  byId("guard-note").className = found.tripped ? "note bad" : found.consecutive_clamps || !found.enabled ? "note warn" : "note";
  facts("guard-facts", [
    ["state", state, found.tripped ? "bad" : found.enabled ? "" : "warn"],
    ["in a row", row, found.consecutive_clamps ? "warn" : ""],
    ["violations", found.violations_total],
    ["chunks checked", found.inference_count],
    ["mode", found.mode],
    found.tripped_callers.length ? ["tripped callers", calledOut(found), "bad"] : null,
  ]);
  fill("events", found.events, (events) =>
    events.length ? events.map(guardEvent) : [make("li", { name: "note", text: "Every chunk was inside the limits so far." })]);
}

/** HTTP callers that are held, by name; the robot of this process is the state above. */
function calledOut({ tripped_callers: names, tripped_total: total }) {
  return total > names.length ? `${names.join(", ")} … (${total} in all)` : names.join(", ");
}

function guardEvent(event) {
  const title = event.hold_reason ? `■ Held: ${event.hold_reason.replaceAll("_", " ")}` : "▲ Changed a chunk";
  const times = event.times > 1 ? ` × ${event.times}` : "";
  const where = [clock(event.last_s), event.episode_id, event.slot === "prod" ? "" : event.slot].filter(Boolean).join(" · ");
  return make("li", {},
    make("span", { level: event.hold_reason ? "bad" : "warn", text: title + times }),
    ...event.words.map(({ text }) => make("div", { text })),
    ...event.words.filter(({ advice }) => advice).slice(0, 1).map(({ advice }) => make("small", { text: `→ ${advice}` })),
    make("small", { text: where }));
}

export function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { hour12: false });
}

function counters({ counts, features, breakers, robot }) {
  const errors = Object.entries(counts.errors).filter(([, times]) => times > 0);
  facts("counter-facts", [
    ["answers", counts.answers ?? 0],
    ["fallbacks", counts.fallbacks ?? 0],
    ["clamped", counts.clamped ?? 0],
    robot === null ? null : ["holds", robot.holds],
    robot === null ? null : ["refused", robot.refused],
    robot === null ? null : ["discarded", robot.discarded],
    ["cache", features.prefix_cache ? `${counts.cache_hits ?? 0} of ${(counts.cache_hits ?? 0) + (counts.cache_misses ?? 0)}` : "off"],
    ["rtc", features.rtc ? counts.guided ?? 0 : "off"],
    ["a2c2", features.a2c2 ? counts.corrected ?? 0 : "off"],
    ...breakers.map(({ slot, state, consecutive_failures }) => [
      "breaker",
      consecutive_failures ? `${state}, ${consecutive_failures} failed` : state,
      state === "closed" ? "" : "bad",
      false,
      slot === "prod" ? undefined : `circuit breaker ${slot}`,
    ]),
    ["no chunk", errors.length ? errors.map(([slug, times]) => `${slug} ${times}`).join(", ") : "0",
      errors.length ? "warn" : "", errors.length > 0],
  ]);
}

function recorders(found) {
  fill("recorders", found, (all) => all.length
    ? all.map(({ kind, problem, written, dropped }) => make("li", {},
      make("span", { level: problem ? "bad" : "", text: `${problem ? "■ " : ""}${kind}: ${written} written` }),
      ...(dropped ? [make("span", { level: "warn", text: `, ${dropped} lost` })] : []),
      ...(problem ? [make("small", { text: problem })] : [])))
    : [make("li", { name: "note", text: "Nothing is recorded." })]);
}

function findings(robot) {
  byId("concerns").hidden = robot === null;
  fill("findings", robot?.findings ?? [], (all) => all.map(({ concern, level, message }) => make("li", {},
    make("span", { level: LEVELS[level], text: `${SIGNS[LEVELS[level]]} ${concern}` }), make("small", { text: message }))));
}

const values = new Map();

/** A row that changed is marked for some seconds. */
function settings(rows) {
  const seen = rows.map(({ name, value, live }) => [name, shown(value), live]);
  const changed = seen.filter(([name, value]) => values.has(name) && values.get(name) !== value).map(([name]) => name);
  for (const [name, value] of seen) values.set(name, value);
  fill("settings-rows", seen, () => seen.map(([name, value, live]) => {
    const row = make("tr", {}, make("td", { text: name }), make("td", { text: value }), make("td", { text: live ? "live" : "fixed" }));
    row.dataset.name = name;
    if (changed.includes(name)) {
      row.classList.add("fresh");
      setTimeout(() => row.classList.remove("fresh"), FRESH_MS);
    }
    return row;
  }));
}

function shown(value) {
  if (value === "" || (Array.isArray(value) && value.length === 0)) return "–";
  return Array.isArray(value) ? value.join(", ") : String(value);
}
