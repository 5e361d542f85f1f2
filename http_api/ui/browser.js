// A tree of names by /metrics/find, and a graph of what /render answers as JSON.
// Whatever comes from the server is put into text nodes, never read as HTML.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const SERIES_MAX = 50;
const NODES_MAX = 1000;
const AREA = { left: 70, top: 12, right: 888, bottom: 330 };

const byId = (id) => document.getElementById(id);
const targets = [];
let asked = 0;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function say(text, isError = false) {
  byId("message").textContent = text;
  byId("message").className = isError ? "error" : "";
}

async function get(path, pairs) {
  const answer = await fetch(path + "?" + new URLSearchParams(pairs), { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 500));
  return answer.json();
}

// ---------------------------------------------------------------- the tree

async function fill(list, prefix) {
  const nodes = await get("/metrics/find", [["query", prefix + "*"], ["format", "completer"]]);
  const rows = nodes.metrics.slice(0, NODES_MAX).map((node) => row(node));
  if (nodes.metrics.length > NODES_MAX) rows.push(element("li", `… and ${nodes.metrics.length - NODES_MAX} more`));
  list.replaceChildren(...rows);
}

function row(node) {
  const item = element("li", "");
  const button = element("button", node.name, { type: "button" });
  item.append(button);
  if (node.is_leaf === "1") {
    button.addEventListener("click", () => toggle(node.path));
    return item;
  }
  const below = element("ul", "");
  below.hidden = true;
  item.append(below);
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", async () => {
    below.hidden = !below.hidden;
    button.setAttribute("aria-expanded", String(!below.hidden));
    if (!below.hidden && !below.firstChild) await attempt(() => fill(below, node.path));
  });
  return item;
}

function toggle(target) {
  const place = targets.indexOf(target);
  if (place < 0) targets.push(target);
  else targets.splice(place, 1);
  show();
}

// ---------------------------------------------------------------- the graph

async function show() {
  const ticket = ++asked;
  if (!targets.length) {
    draw([]);
    say("Choose a series on the left, or write a target.");
    return true;
  }
  return attempt(async () => {
    const pairs = targets.map((target) => ["target", target]);
    pairs.push(["from", byId("range").value], ["format", "json"], ["maxDataPoints", "800"]);
    const series = await get("/render", pairs);
    if (ticket !== asked) return; // a later question is under way
    draw(series.slice(0, SERIES_MAX));
    const more = series.length > SERIES_MAX ? `, the first ${SERIES_MAX} of them drawn` : "";
    say(`${series.length} series${more}`);
  });
}

function draw(series) {
  const points = series.flatMap((one) => one.datapoints);
  const known = points.map((point) => point[0]).filter((value) => value !== null);
  byId("graph").replaceChildren();
  byId("legend").replaceChildren(...series.map((one, i) => legend(one, i)));
  if (!known.length) return;
  const bound = (values, pick) => values.reduce((a, b) => pick(a, b));
  const times = points.map((point) => point[1]);
  const scale = {
    low: bound(known, Math.min),
    high: bound(known, Math.max),
    from: bound(times, Math.min),
    until: bound(times, Math.max),
  };
  if (scale.low === scale.high) [scale.low, scale.high] = [scale.low - 1, scale.high + 1];
  if (scale.from === scale.until) scale.until += 1;
  byId("graph").append(...axes(scale), ...series.map((one, i) => line(one, i, scale)));
}

const x = (time, scale) => AREA.left + ((time - scale.from) / (scale.until - scale.from)) * (AREA.right - AREA.left);
const y = (value, scale) => AREA.bottom - ((value - scale.low) / (scale.high - scale.low)) * (AREA.bottom - AREA.top);

function line(one, i, scale) {
  let path = "";
  let pen = "M";
  for (const [value, time] of one.datapoints) {
    if (value === null) {
      pen = "M";
      continue;
    }
    const place = `${x(time, scale).toFixed(1)} ${y(value, scale).toFixed(1)}`;
    // a point without neighbours is a short stroke, or it would not be seen
    path += pen === "M" ? `M${place}h1M${place}` : `L${place}`;
    pen = "L";
  }
  return drawn("path", { d: path, stroke: COLORS[i % COLORS.length] });
}

function axes(scale) {
  const made = [];
  for (let i = 0; i <= 4; i++) {
    const value = scale.low + ((scale.high - scale.low) * i) / 4;
    const height = y(value, scale);
    made.push(drawn("line", { class: "grid", x1: AREA.left, x2: AREA.right, y1: height, y2: height }));
    made.push(drawn("text", { x: AREA.left - 6, y: height + 4, "text-anchor": "end" }, short(value)));
    const time = scale.from + ((scale.until - scale.from) * i) / 4;
    const anchor = i === 0 ? "start" : i === 4 ? "end" : "middle";
    made.push(drawn("text", { x: x(time, scale), y: AREA.bottom + 18, "text-anchor": anchor }, clock(time, scale)));
  }
  return made;
}

const short = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(4))));

function clock(time, scale) {
  const date = new Date(time * 1000);
  return scale.until - scale.from > 2 * 86400 ? date.toLocaleDateString() : date.toLocaleTimeString();
}

function legend(one, i) {
  const item = element("li", "");
  const mark = drawn("svg", { viewBox: "0 0 10 10" });
  mark.append(drawn("rect", { width: 10, height: 10, fill: COLORS[i % COLORS.length] }));
  item.append(mark, one.target ?? "(no name)");
  return item;
}

// ---------------------------------------------------------------- start

async function attempt(work) {
  try {
    await work();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const target = byId("target").value.trim();
  const isNew = target && !targets.includes(target);
  if (isNew) targets.push(target);
  if (await show()) byId("target").value = "";
  else if (isNew) targets.splice(targets.indexOf(target), 1); // it stays in the field, to be mended
});
byId("clear").addEventListener("click", () => {
  targets.length = 0;
  show();
});
byId("range").addEventListener("change", show);
attempt(() => fill(byId("tree"), ""));
