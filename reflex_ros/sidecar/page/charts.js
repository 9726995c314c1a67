// SPDX-License-Identifier: Apache-2.0
// Drawn by hand: one small chart per joint, zoomed to its motion.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100;
const WIDTH = 300;
const LEAST_SPAN = 0.02; // rad or m: less is no motion that a person sees
const SPARE = 0.15; // above and below the motion, of its span
const NEAR = 0.5; // of the span: a limit that is nearer is drawn

/** An SVG element with attributes; text goes in as text. */
export function draw(tag, attributes = {}, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** At most three digits that count. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2);
}

function span(name, text = "") {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

/** The frame of one joint's chart, made once; `update` moves what is in it. */
export class JointChart {
  constructor(name) {
    this.element = document.createElement("div");
    this.element.className = "joint";
    this.value = document.createElement("b");
    this.top = span("end top");
    this.low = span("end low");
    const title = span("", name);
    title.title = name;
    const header = document.createElement("header");
    header.append(title, this.value);
    this.footer = document.createElement("footer");
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.svg.setAttribute("aria-label", `${name} over the chunk`);
    this.over = draw("rect", { class: "over", x: 0, y: 0, height: HEIGHT });
    this.now = draw("line", { class: "now", y1: 0, y2: HEIGHT });
    this.path = draw("polyline", { class: "path" });
    this.raw = draw("polyline", { class: "path raw" });
    this.limits = draw("g");
    this.svg.append(this.limits, this.raw, this.path, this.over, this.now);
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.append(this.svg, this.top, this.low);
    this.element.append(header, plot, this.footer);
  }

  update(joint, chunk) {
    const rows = joint.rows.length;
    const [low, high] = scale(joint);
    const y = (value) => HEIGHT - ((value - low) / (high - low)) * HEIGHT;
    this.path.setAttribute("points", points(joint.rows, y));
    this.raw.setAttribute("points", joint.raw === null ? "" : points(joint.raw, y));
    const apart = difference(joint);
    this.element.classList.toggle("changed", apart > 0);
    const passed = Math.min(Math.max(chunk.since_s / (chunk.dt_s * rows), 0), 1) * WIDTH;
    this.over.setAttribute("width", passed);
    this.now.setAttribute("x1", passed);
    this.now.setAttribute("x2", passed);
    this.#limit(joint, y, low, high);
    const row = Math.min(Math.max(Math.floor(chunk.since_s / chunk.dt_s), 0), rows - 1);
    put(this.value, `${joint.rows[row] === null ? "not a number" : joint.rows[row].toFixed(3)} ${joint.unit}`);
    put(this.top, high.toFixed(2));
    put(this.low, low.toFixed(2));
    const limit = joint.max !== null && joint.max <= high ? ` · max ${number(joint.max)}` : joint.min !== null && joint.min >= low ? ` · min ${number(joint.min)}` : "";
    put(this.footer, apart > 0 ? `changed ${number(apart)}${limit}` : distance(joint));
    this.footer.classList.toggle("near", apart > 0 || this.limits.childElementCount > 0);
  }

  #limit(joint, y, low, high) {
    const drawn = `${joint.min} ${joint.max} ${low} ${high}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.limits.replaceChildren();
    if (joint.max !== null && joint.max <= high) this.#band(0, y(joint.max), y(joint.max));
    if (joint.min !== null && joint.min >= low) this.#band(y(joint.min), HEIGHT, y(joint.min));
  }

  #band(top, bottom, line) {
    this.limits.append(
      draw("rect", { class: "limit", x: 0, width: WIDTH, y: top, height: Math.max(bottom - top, 0) }),
      draw("line", { class: "limit-line", x1: 0, x2: WIDTH, y1: line, y2: line }),
    );
  }
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function points(values, y) {
  const step = WIDTH / values.length;
  return values
    .map((value, row) => (value === null ? "" : `${((row + 1) * step).toFixed(1)},${clip(y(value)).toFixed(1)}`))
    .join(" ");
}

function clip(y) {
  return Math.min(Math.max(y, 1), HEIGHT - 1);
}

function known(joint) {
  return joint.rows.concat(joint.raw ?? []).filter((value) => value !== null);
}

/** The most by which the guard changed a row; 0 where it changed none. */
function difference({ raw, rows }) {
  if (raw === null) return 0;
  return Math.max(0, ...raw.map((value, row) => (value === null || rows[row] === null ? 0 : Math.abs(value - rows[row]))));
}

/** How far the motion stays from the nearer limit. */
function distance(joint) {
  const values = known(joint);
  if (values.length === 0 || (joint.min === null && joint.max === null)) return "no limit known";
  const above = joint.max === null ? Infinity : joint.max - Math.max(...values);
  const below = joint.min === null ? Infinity : Math.min(...values) - joint.min;
  const [space, name, limit] = above <= below ? [above, "max", joint.max] : [below, "min", joint.min];
  return space <= 0 ? `at ${name} ${number(limit)}` : `${number(space)} from ${name} ${number(limit)}`;
}

/** What the chart shows: the motion with a little around it, and a limit that is near. */
function scale(joint) {
  const values = known(joint);
  let low = Math.min(...values, ...(values.length ? [] : [0]));
  let high = Math.max(...values, ...(values.length ? [] : [0]));
  const motion = Math.max(high - low, LEAST_SPAN);
  const middle = (high + low) / 2;
  low = Math.min(low, middle - motion / 2);
  high = Math.max(high, middle + motion / 2);
  if (joint.max !== null && joint.max - high < NEAR * motion) high = Math.max(high, joint.max);
  if (joint.min !== null && low - joint.min < NEAR * motion) low = Math.min(low, joint.min);
  return [low - SPARE * motion, high + SPARE * motion];
}
