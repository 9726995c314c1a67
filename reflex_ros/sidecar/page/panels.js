// SPDX-License-Identifier: Apache-2.0
// From the state document to what is seen. Words that others wrote (instructions, ids) go in by textContent alone.

import { JointChart, histogram, number } from "./charts.js";

const LEVELS = ["good", "warn", "bad", "bad"]; // of /diagnostics: OK, WARN, ERROR, STALE
const SIGNS = { good: "✓", wait: "…", warn: "▲", bad: "■", lost: "✕" };
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

/** The big letters. level: good, wait, warn, bad or lost. */
export function showSummary({ level, word, sentence }) {
  byId("top").dataset.level = level;
  setText("sign", SIGNS[level]);
  setText("word", word);
  setText("sentence", sentence);
}

export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function render(state) {
  showSummary(state.summary);
  const name = state.robot_id || "robot without a name";
  setText("robot-id", name);
  document.title = `${state.summary.word} · ${name}`;
  setText("version", `reflex ${state.reflex_version}`);
  now(state);
  latency(state.latency);
  chunk(state.chunk);
  guard(state.guard);
  counters(state);
  recorders(state.recorders);
  findings(state.robot);
  settings(state.settings);
}

/** Names and values as a description list; an entry is [name, value, level, long]. */
function facts(id, entries) {
  fill(id, entries.filter((entry) => entry !== null), (all) =>
    all.map(([name, value, level = "", long = false]) =>
      make("div", { name: long ? "long" : "" }, make("dt", { text: name }), make("dd", { level, text: String(value) }))));
}

function now({ robot, request, chunks_per_s, model_version, embodiment, inference_mode }) {
  facts("now-facts", [
    ["instruction", robot?.instruction || request?.instruction || "–", "", true],
    ["episode", robot?.episode_id || request?.episode_id || "–", "", true],
    ["chunks per second", chunks_per_s.toFixed(1)],
    robot === null ? null : ["chunk lasts", `${robot.remaining_s.toFixed(1)} s`],
    ...Object.entries(robot?.ages_ms ?? {}).map(([stream, age]) => [`${stream === "camera camera" ? "camera" : stream} age`, `${age.toFixed(0)} ms`]),
    ["model", model_version || "none", "", true],
    ["embodiment", embodiment || "–"],
    ["runs on", inference_mode || "–"],
  ]);
}

export function pictures({ frames }) {
  const list = byId("cameras");
  frames.forEach((frame, index) => {
    const figure = list.children[index] ?? list.appendChild(
      make("figure", {}, make("img"), make("figcaption")));
    const [image, caption] = figure.children;
    image.hidden = frame.jpeg === undefined;
    if (frame.jpeg !== undefined) image.src = `data:image/jpeg;base64,${frame.jpeg}`;
    image.alt = `camera ${frame.camera}`;
    caption.textContent = frame.problem === undefined ? frame.camera : `${frame.camera}: ${frame.problem}`;
  });
  while (list.children.length > frames.length) list.lastElementChild.remove();
}

function latency(found) {
  fill("histogram", [found.bars, found.top_ms, found.deadline_ms, found.slo?.threshold_ms, found.slo?.name], () => [histogram(found)]);
  const ms = (value) => (found.count ? `${number(value)} ms` : "–");
  facts("latency-facts", [
    ["last", ms(found.last_ms)],
    ["p50", ms(found.p50_ms)],
    ["p95", ms(found.p95_ms)],
    ["p99", ms(found.p99_ms)],
    ["longest", ms(found.max_ms)],
    ["deadline", found.deadline_ms === null ? "none" : `${number(found.deadline_ms)} ms`],
    ["deadline misses", found.deadline_misses, found.deadline_misses ? "warn" : ""],
    found.slo === null
      ? ["objective", "none"]
      : [`objective ${found.slo.name} ${number(found.slo.threshold_ms)} ms`,
        found.slo.violated ? `missed: ${number(found.slo.measured_ms)} ms` : `met: ${number(found.slo.measured_ms)} ms`,
        found.slo.violated ? "bad" : ""],
  ]);
}

let charts = [];

function chunk(found) {
  byId("chunk").hidden = found === null;
  if (found === null) return;
  const names = found.joints.map((joint) => joint.name);
  fill("joints", names, () => {
    charts = names.map((name) => new JointChart(name));
    return charts.map((chart) => chart.element);
  });
  found.joints.forEach((joint, index) => charts[index].update(joint, found));
  const rows = found.joints[0]?.rows.length ?? 0;
  const source = found.source === "policy" ? "from the policy" : `fallback: ${found.source}${found.hold_reason && `, ${found.hold_reason}`}`;
  setText("chunk-note", `${source} · ${rows} rows of ${number(1000 * found.dt_s)} ms`);
}

function guard(found) {
  byId("guard").hidden = found === null;
  if (found === null) return;
  facts("guard-facts", [
    ["state", found.tripped ? "TRIPPED" : found.enabled ? "watching" : "no limits known", found.tripped ? "bad" : found.enabled ? "" : "warn"],
    ["in a row", `${found.consecutive_clamps} of ${found.max_consecutive_clamps || "any"}`, found.consecutive_clamps ? "warn" : ""],
    ["violations", found.violations_total],
    ["chunks checked", found.inference_count],
    ["mode", found.mode],
    found.tripped_callers.length ? ["tripped callers", calledOut(found), "bad"] : null,
  ]);
  fill("events", found.events, (events) =>
    events.length ? events.map(guardEvent) : [make("li", { name: "note", text: "Nothing was changed so far." })]);
}

/** Who asks over HTTP and is held; the robot of this process is the state above. */
function calledOut({ tripped_callers: names, tripped_total: total }) {
  return total > names.length ? `${names.join(", ")} … (${total} in all)` : names.join(", ");
}

function guardEvent(event) {
  const title = event.hold_reason ? `■ hold: ${event.hold_reason}` : "▲ clamped";
  const times = event.times > 1 ? ` × ${event.times}` : "";
  const where = [clock(event.last_s), event.episode_id, event.slot === "prod" ? "" : event.slot].filter(Boolean).join(" · ");
  return make("li", {},
    make("span", { level: event.hold_reason ? "bad" : "warn", text: title + times }),
    ...event.violations.map((line) => make("div", { text: line })),
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
    robot === null ? null : ["holds of the robot", robot.holds],
    robot === null ? null : ["refused observations", robot.refused],
    robot === null ? null : ["chunks thrown away", robot.discarded],
    ["cache hits", features.prefix_cache ? `${counts.cache_hits ?? 0} of ${(counts.cache_hits ?? 0) + (counts.cache_misses ?? 0)}` : "off"],
    ["RTC guided", features.rtc ? counts.guided ?? 0 : "off"],
    ["A2C2 corrected", features.a2c2 ? counts.corrected ?? 0 : "off"],
    ...breakers.map(({ slot, state, consecutive_failures }) => [
      slot === "prod" ? "circuit breaker" : `circuit breaker ${slot}`,
      consecutive_failures ? `${state}, ${consecutive_failures} failed` : state,
      state === "closed" ? "" : "bad",
    ]),
    ["requests without a chunk", errors.length ? errors.map(([slug, times]) => `${slug} ${times}`).join(", ") : "0",
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
