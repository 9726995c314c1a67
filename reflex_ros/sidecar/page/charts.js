// SPDX-License-Identifier: Apache-2.0
// Drawn by hand: the latency histogram, and one small chart per joint.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480;
const HEIGHT = 170;
const FLOOR = 140; // where the bars stand
const CEILING = 32;
const JOINT_HEIGHT = 100;
const JOINT_WIDTH = 300;

/** An SVG element with attributes; text goes in as text. */
export function draw(tag, attributes = {}, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Bars from 0 to top_ms, with lines at deadline, objective, median and 99th percentile. */
export function histogram(latency) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "latency histogram" });
  const x = (ms) => (Math.min(ms, latency.top_ms) / latency.top_ms) * WIDTH;
  const most = Math.max(1, ...latency.bars);
  const step = WIDTH / latency.bars.length;
  latency.bars.forEach((count, index) => {
    if (count === 0) return;
    const height = Math.max(2, (count / most) * (FLOOR - CEILING));
    const late = latency.deadline_ms !== null && (index * latency.top_ms) / latency.bars.length >= latency.deadline_ms;
    svg.append(draw("rect", {
      class: late ? "bar late" : "bar", x: index * step + 0.5, width: step - 1, y: FLOOR - height, height,
    }));
  });
  svg.append(draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: FLOOR, y2: FLOOR }));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const text = `${number(share * latency.top_ms)}${share === 1 ? " ms" : ""}`;
    svg.append(draw("text", { x: share * WIDTH, y: FLOOR + 15, "text-anchor": anchor }, text));
  }
  if (latency.count > 0) {
    for (const [name, ms] of [["p50", latency.p50_ms], ["p99", latency.p99_ms]]) {
      svg.append(draw("line", { class: "mark", x1: x(ms), x2: x(ms), y1: FLOOR, y2: FLOOR + 4 }));
      svg.append(draw("text", { x: near(x(ms)), y: HEIGHT - 2, "text-anchor": side(x(ms)) }, name));
    }
  }
  if (latency.slo !== null) {
    upright(svg, x(latency.slo.threshold_ms), "slo", `${latency.slo.name} ${number(latency.slo.threshold_ms)}`, 10);
  }
  if (latency.deadline_ms !== null) {
    upright(svg, x(latency.deadline_ms), "deadline", `deadline ${number(latency.deadline_ms)}`, 25);
  }
  return svg;
}

function upright(svg, x, name, text, y) {
  svg.append(draw("line", { class: name, x1: x, x2: x, y1: y - 8, y2: FLOOR }));
  const left = x > WIDTH - 100;
  svg.append(draw("text", {
    class: `${name}-text`, x: left ? x - 6 : x + 6, y, "text-anchor": left ? "end" : "start",
  }, text));
}

function near(x) {
  return Math.min(Math.max(x, 2), WIDTH - 2);
}

function side(x) {
  return x < 12 ? "start" : x > WIDTH - 12 ? "end" : "middle";
}

/** At most three digits that say something. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2);
}

/** The frame of one joint's chart, made once; `update` moves what is in it. */
export class JointChart {
  constructor(name) {
    this.element = document.createElement("div");
    this.element.className = "joint";
    this.value = document.createElement("b");
    this.ends = [document.createElement("span"), document.createElement("span")];
    const title = document.createElement("span");
    title.textContent = name;
    const header = document.createElement("header");
    header.append(title, this.value);
    const footer = document.createElement("footer");
    footer.append(...this.ends);
    this.svg = draw("svg", { viewBox: `0 0 ${JOINT_WIDTH} ${JOINT_HEIGHT}`, preserveAspectRatio: "none" });
    this.over = draw("rect", { class: "over", x: 0, y: 0, height: JOINT_HEIGHT });
    this.now = draw("line", { class: "now", y1: 0, y2: JOINT_HEIGHT });
    this.path = draw("polyline", { class: "path" });
    this.raw = draw("polyline", { class: "path raw" });
    this.limits = draw("g");
    this.svg.append(this.limits, this.raw, this.path, this.over, this.now);
    this.element.append(header, this.svg, footer);
  }

  update(joint, chunk) {
    const rows = joint.rows.length;
    const [low, high] = scale(joint);
    const y = (value) => JOINT_HEIGHT - ((value - low) / (high - low)) * JOINT_HEIGHT;
    this.path.setAttribute("points", points(joint.rows, y));
    this.raw.setAttribute("points", joint.raw === null ? "" : points(joint.raw, y));
    this.element.classList.toggle("changed", joint.raw !== null && joint.raw.some((value, row) => value !== joint.rows[row]));
    const passed = Math.min(Math.max(chunk.since_s / (chunk.dt_s * rows), 0), 1) * JOINT_WIDTH;
    this.over.setAttribute("width", passed);
    this.now.setAttribute("x1", passed);
    this.now.setAttribute("x2", passed);
    this.#limit(joint, y);
    const row = Math.min(Math.max(Math.floor(chunk.since_s / chunk.dt_s), 0), rows - 1);
    this.value.textContent = `${joint.rows[row] === null ? "not a number" : joint.rows[row].toFixed(3)} ${joint.unit}`;
    this.ends[0].textContent = joint.min === null ? "no lower limit" : `min ${number(joint.min)}`;
    this.ends[1].textContent = joint.max === null ? "no upper limit" : `max ${number(joint.max)}`;
  }

  #limit(joint, y) {
    const drawn = `${joint.min} ${joint.max} ${y(0)}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.limits.replaceChildren();
    if (joint.max !== null) this.#band(0, y(joint.max), y(joint.max));
    if (joint.min !== null) this.#band(y(joint.min), JOINT_HEIGHT, y(joint.min));
  }

  #band(top, bottom, line) {
    const height = Math.max(bottom - top, 0);
    this.limits.append(
      draw("rect", { class: "limit", x: 0, width: JOINT_WIDTH, y: top, height }),
      draw("line", { class: "limit-line", x1: 0, x2: JOINT_WIDTH, y1: line, y2: line }),
    );
  }
}

function points(values, y) {
  const step = JOINT_WIDTH / values.length;
  return values
    .map((value, row) => (value === null ? "" : `${((row + 1) * step).toFixed(1)},${clip(y(value)).toFixed(1)}`))
    .join(" ");
}

function clip(y) {
  return Math.min(Math.max(y, 1), JOINT_HEIGHT - 1);
}

/** What the chart shows: the limits with a little beyond them, or where there are none, the values. */
function scale(joint) {
  const known = joint.rows.concat(joint.raw ?? []).filter((value) => value !== null);
  const low = joint.min ?? Math.min(...known, 0);
  const high = joint.max ?? Math.max(...known, 0);
  const spare = Math.max(high - low, 1e-3) * 0.1;
  return [low - spare, high + spare];
}
