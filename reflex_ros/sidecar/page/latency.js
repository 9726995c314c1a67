// SPDX-License-Identifier: Apache-2.0
// The latency over the last minutes, with deadline and objective; its distribution, folded.

import { draw, number } from "./charts.js";

const LEFT = 34; // of the plot: the scale stands there
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 18; // the times stand there
const GAP_S = 3; // seconds without an answer after which the line is broken
const BAR_WIDTH = 480;
const BAR_HEIGHT = 170;
const FLOOR = 140; // where the bars stand
const CEILING = 32;

/** The last minutes, as wide and as tall as the element: x is the time of day, y the latency. */
export function timeline(latency, now_s, width, height) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(latency) });
  const end = Math.floor(now_s);
  const floor = height - BOTTOM;
  const x = (age_s) => width - RIGHT - (age_s / latency.window_s) * (width - LEFT - RIGHT);
  const y = (ms) => floor - (Math.min(ms, latency.top_ms) / latency.top_ms) * (floor - TOP);
  for (const share of [0, 0.5, 1]) {
    const at = y(share * latency.top_ms);
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    svg.append(draw("text", { x: LEFT - 4, y: at + 4, "text-anchor": "end" }, number(share * latency.top_ms)));
  }
  svg.append(draw("text", { x: 0, y: height - 4 }, "ms"));
  for (let age = end % 60; age < latency.window_s; age += 60) {
    if (x(age) < LEFT + 24) break;
    svg.append(draw("line", { class: "grid", x1: x(age), x2: x(age), y1: TOP, y2: floor }));
    const anchor = x(age) > width - 24 ? "end" : "middle";
    svg.append(draw("text", { x: x(age), y: height - 4, "text-anchor": anchor }, minute(end - age)));
  }
  for (const part of unbroken(latency.seconds)) {
    const upper = part.map(([age, , most]) => `${x(age).toFixed(1)},${y(most).toFixed(1)}`);
    const mean = part.map(([age, ms]) => `${x(age).toFixed(1)},${y(ms).toFixed(1)}`);
    svg.append(draw("polygon", { class: "most", points: [`${x(part[0][0]).toFixed(1)},${floor}`, ...upper, `${x(part.at(-1)[0]).toFixed(1)},${floor}`].join(" ") }));
    svg.append(draw("polyline", { class: "mean", points: mean.join(" ") }));
  }
  if (latency.slo !== null) across(svg, y(latency.slo.threshold_ms), width, "slo", `objective ${latency.slo.name} ${number(latency.slo.threshold_ms)}`, LEFT + 4, "start");
  if (latency.deadline_ms !== null) {
    for (const [age, , most] of latency.seconds) {
      if (most > latency.deadline_ms) svg.append(draw("circle", { class: "late", cx: x(age), cy: y(most), r: 3 }));
    }
    across(svg, y(latency.deadline_ms), width, "deadline", `deadline ${number(latency.deadline_ms)}`, width - RIGHT - 4, "end");
  }
  return svg;
}

function described(latency) {
  if (latency.count === 0) return "latency over the last minutes: no answer so far";
  const deadline = latency.deadline_ms === null ? "no deadline" : `deadline ${number(latency.deadline_ms)} ms`;
  return `latency over the last minutes: p50 ${number(latency.p50_ms)} ms, p99 ${number(latency.p99_ms)} ms, ${deadline}`;
}

function across(svg, y, width, name, text, x, anchor) {
  svg.append(draw("line", { class: name, x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
  svg.append(draw("text", { class: `${name}-text halo`, x, y: y < 22 ? y + 14 : y - 5, "text-anchor": anchor }, text));
}

/** Runs of seconds without a longer gap. */
function unbroken(seconds) {
  const parts = [];
  for (const second of seconds) {
    const last = parts.at(-1)?.at(-1);
    if (last && last[0] - second[0] <= GAP_S) parts.at(-1).push(second);
    else parts.push([second]);
  }
  return parts;
}

function minute(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit" });
}

/** Bars from 0 to top_ms, with lines at deadline, objective, median and 99th percentile. */
export function histogram(latency) {
  const svg = draw("svg", { viewBox: `0 0 ${BAR_WIDTH} ${BAR_HEIGHT}`, role: "img", "aria-label": "distribution of the latency" });
  const x = (ms) => (Math.min(ms, latency.top_ms) / latency.top_ms) * BAR_WIDTH;
  const most = Math.max(1, ...latency.bars);
  const step = BAR_WIDTH / latency.bars.length;
  latency.bars.forEach((count, index) => {
    if (count === 0) return;
    const height = Math.max(2, (count / most) * (FLOOR - CEILING));
    const late = latency.deadline_ms !== null && (index * latency.top_ms) / latency.bars.length >= latency.deadline_ms;
    svg.append(draw("rect", {
      class: late ? "bar late" : "bar", x: index * step + 0.5, width: step - 1, y: FLOOR - height, height,
    }));
  });
  svg.append(draw("line", { class: "axis", x1: 0, x2: BAR_WIDTH, y1: FLOOR, y2: FLOOR }));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const text = `${number(share * latency.top_ms)}${share === 1 ? " ms" : ""}`;
    svg.append(draw("text", { x: share * BAR_WIDTH, y: FLOOR + 15, "text-anchor": anchor }, text));
  }
  if (latency.count > 0) {
    for (const [name, ms] of [["p50", latency.p50_ms], ["p99", latency.p99_ms]]) {
      svg.append(draw("line", { class: "mark", x1: x(ms), x2: x(ms), y1: FLOOR, y2: FLOOR + 4 }));
      svg.append(draw("text", { x: near(x(ms)), y: BAR_HEIGHT - 2, "text-anchor": side(x(ms)) }, name));
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
  const left = x > BAR_WIDTH - 100;
  svg.append(draw("text", {
    class: `${name}-text`, x: left ? x - 6 : x + 6, y, "text-anchor": left ? "end" : "start",
  }, text));
}

function near(x) {
  return Math.min(Math.max(x, 2), BAR_WIDTH - 2);
}

function side(x) {
  return x < 12 ? "start" : x > BAR_WIDTH - 12 ? "end" : "middle";
}
