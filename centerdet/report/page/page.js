"use strict";
// The charts, the sorting of tables and the filter of galleries. All text from the data goes through textContent.

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24;  // cards of a gallery that are shown at first, and with each "Show more"
const chooser = document.getElementById("class");
const slider = document.getElementById("threshold");
const chosen = () => (chooser.value === "" ? null : Number(chooser.value));
const percent = value => (value === null || Number.isNaN(value) ? "–" : (100 * value).toFixed(1).replace(/^-0\.0$/, "0.0"));
const sum = values => values.reduce((total, value) => total + value, 0);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "circle", "text", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function fillTable(figure, columns, rows) {
  const head = make("thead", {}, make("tr", {}, ...columns.map((name, i) => make("th", { scope: "col", ...(i ? {} : { class: "text" }) }, name))));
  const body = make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, String(cell))))));
  figure.querySelector("details .scroll").replaceChildren(make("table", {}, head, body));
}

// Round numbers between two ends, about eight.
function ticks(low, high) {
  const unit = 10 ** Math.floor(Math.log10((high - low) / 8)), step = unit * [1, 2, 5, 10].find(one => one * unit >= (high - low) / 8);
  const first = Math.ceil(low / step), last = Math.floor(high / step);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

// A plot area with axes: x and y map values to px; draw(name, attributes) adds to it.
function plot(id, options) {
  const figure = document.getElementById(id), holder = figure.querySelector(".plot");
  const width = Math.max(260, holder.clientWidth || 480), height = options.height || 280;
  const left = options.left ?? 44, bottom = 40, top = options.top ?? 10, right = 12;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label });
  const scale = options.scale || (value => value);
  const [x0, x1] = options.x || [0, 1], [y0, y1] = options.y || [0, 1];
  const x = value => left + (width - left - right) * (value - x0) / (x1 - x0);
  const y = value => height - bottom - (height - bottom - top) * (scale(value) - scale(y0)) / (scale(y1) - scale(y0));
  const draw = (name, attributes, ...children) => svg.appendChild(make(name, attributes, ...children));
  for (const tick of options.yTicks || [0, .2, .4, .6, .8, 1]) {
    draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) });
    draw("text", { x: left - 7, y: y(tick) + 4, "text-anchor": "end" }, (options.yText || (v => Math.round(100 * v)))(tick));
  }
  for (const tick of options.xTicks || [0, .2, .4, .6, .8, 1]) {
    draw("text", { x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, (options.xText || (v => v.toFixed(1)))(tick));
    if (options.xGrid) draw("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom });
  }
  draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom });
  draw("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, options.xLabel || "");
  holder.replaceChildren(svg);
  return { figure, draw, x, y, width, height, left, right, bottom, top };
}

const path = (area, points) => points.map(([a, b], i) => `${i ? "L" : "M"}${area.x(a).toFixed(1)} ${area.y(b).toFixed(1)}`).join("");
const line = (area, kind, points) => points.length && area.draw("path", { class: kind, d: path(area, points) });

function legend(area, entries) {
  let at = area.left;
  for (const [kind, text] of entries) {
    area.draw("line", { class: kind, x1: at, x2: at + 22, y1: 9, y2: 9 });
    area.draw("text", { x: at + 27, y: 13, class: "strong" }, text);
    at += 46 + 7 * text.length;
  }
}

function drawPrecisionRecall() {
  const label = chosen();
  const area = plot("precision-recall", { label: "Precision by recall", xLabel: "recall (%)", xText: v => Math.round(100 * v), xGrid: true });
  const points = curve => (curve.recall.length ? [[0, curve.precision[0]], ...curve.recall.map((r, i) => [r, curve.precision[i]])] : []);
  data.curves.forEach((curve, i) => { if (i !== label) line(area, label === null && data.names.length === 1 ? "first" : "faint", points(curve)); });
  const rows = label === null ? data.classes : [data.classes[label]];
  if (label !== null) line(area, "first", points(data.curves[label]));
  for (const row of rows) {
    if (row.recall === null || row.precision === null) continue;
    area.draw("circle", { class: "dot", r: label === null ? 4 : 6, cx: area.x(row.recall), cy: area.y(row.precision) }, make("title", {}, row.name));
    if (label !== null) area.draw("text", { class: "strong", x: area.x(row.recall) - 9, y: area.y(row.precision) + 18, "text-anchor": "end" }, `score ${row.score_threshold.toFixed(2)}`);
  }
  if (label === null) fillTable(area.figure, ["class", "score", "precision", "recall"], rows.map(r => [r.name, r.score_threshold === null ? "–" : r.score_threshold.toFixed(2), percent(r.precision), percent(r.recall)]));
  else fillTable(area.figure, ["score", "precision", "recall"], data.curves[label].scores.map((s, i) => [s.toFixed(3), percent(data.curves[label].precision[i]), percent(data.curves[label].recall[i])]));
}

// True and false positives by score of the chosen class, or of all.
function counts() {
  const label = chosen(), pick = key => (label === null ? data.scores[key][0].map((_, k) => sum(data.scores[key].map(row => row[k]))) : data.scores[key][label]);
  return { right: pick("true"), wrong: pick("false"), objects: label === null ? data.objects : data.classes[label].objects };
}

function rates() {
  const { right, wrong, objects } = counts();
  let t = 0, f = 0;
  return right.map((_, i) => right.length - 1 - i).map(k => {
    t += right[k]; f += wrong[k];
    return { score: k / right.length, precision: t + f ? t / (t + f) : NaN, recall: objects ? t / objects : NaN, f1: t + f + objects ? 2 * t / (t + f + objects) : NaN, right: t, wrong: f };
  }).reverse();
}

function drawThresholds() {
  const area = plot("thresholds", { label: "Precision, recall and F1 by score threshold", xLabel: "score threshold", top: 28 });
  const all = rates(), points = key => all.filter(one => !Number.isNaN(one[key])).map(one => [one.score, one[key]]);
  line(area, "first", points("precision")); line(area, "second", points("recall")); line(area, "third", points("f1"));
  legend(area, [["first", "precision"], ["second", "recall"], ["third", "F1"]]);
  const at = all[Number(slider.value)];
  area.draw("line", { class: "cursor", x1: area.x(at.score), x2: area.x(at.score), y1: area.top, y2: area.height - area.bottom });
  slider.setAttribute("aria-valuetext", at.score.toFixed(2));
  area.figure.querySelector("output").textContent = `From ${at.score.toFixed(2)}: precision ${percent(at.precision)}, recall ${percent(at.recall)}, F1 ${percent(at.f1)}, ${(at.wrong / Math.max(1, data.images)).toFixed(3)} false positives per image`;
  fillTable(area.figure, ["score", "precision", "recall", "F1", "true", "false"], all.filter((_, k) => k % 5 === 0).map(one => [one.score.toFixed(2), percent(one.precision), percent(one.recall), percent(one.f1), one.right, one.wrong]));
}

function drawHistogram() {
  const { right, wrong } = counts(), bins = [];
  for (let k = 5; k < right.length; k += 5) bins.push([k / right.length, sum(right.slice(k, k + 5)), sum(wrong.slice(k, k + 5))]);
  const most = Math.max(1, ...bins.map(bin => Math.max(bin[1], bin[2])));
  const marks = [0, ...[1 / 16, 1 / 4, 9 / 16, 1].map(part => Math.round(Number((part * most).toPrecision(1))))].filter(one => one <= most);
  const area = plot("histogram", { label: "True and false positives by score", xLabel: "score", y: [0, most], yTicks: [...new Set(marks)], yText: v => v.toLocaleString("en"), scale: Math.sqrt, left: 52 });
  const step = area.x(.05) - area.x(0);
  for (const [score, t, f] of bins) {
    for (const [i, kind, count] of [[0, "bar-first", t], [1, "bar-second", f]])
      area.draw("rect", { class: kind, x: area.x(score) + 1 + i * (step / 2 - 1), width: Math.max(1, step / 2 - 1), y: area.y(count), height: Math.max(0, area.y(0) - area.y(count)) }, make("title", {}, `${score.toFixed(2)}: ${count} ${i ? "false" : "true"}`));
  }
  [["bar-first", "true"], ["bar-second", "false"]].forEach(([kind, text], i) => {
    area.draw("rect", { class: kind, x: area.width - 130 + 65 * i, y: area.top + 2, width: 11, height: 11 });
    area.draw("text", { class: "strong", x: area.width - 114 + 65 * i, y: area.top + 12 }, text);
  });
  fillTable(area.figure, ["score from", "true positives", "false positives"], bins.map(bin => [bin[0].toFixed(2), bin[1], bin[2]]));
}

function drawReliability() {
  if (!data.calibration) return;
  const label = chosen(), curve = label === null ? data.calibration.all : data.calibration.classes[label];
  const area = plot("reliability", { label: "Precision by score", xLabel: "mean score of the bin (dot area: detections)" });
  const bins = curve.count.map((count, k) => ({ from: curve.edges[k], count, score: curve.score[k], precision: curve.precision[k] })).filter(bin => bin.count);
  const most = Math.max(1, ...bins.map(bin => bin.count));
  area.draw("line", { class: "ideal", x1: area.x(0), y1: area.y(0), x2: area.x(1), y2: area.y(1) });
  line(area, "first", bins.map(bin => [bin.score, bin.precision]));
  for (const bin of bins) area.draw("circle", { class: "dot", r: 3 + 7 * Math.sqrt(bin.count / most), cx: area.x(bin.score), cy: area.y(bin.precision) }, make("title", {}, `${bin.count} detections`));
  const error = label === null ? data.calibration.error.d_ece : data.calibration.error.per_class[label];
  area.draw("text", { class: "strong", x: area.left + 10, y: area.top + 14 }, `D-ECE ${percent(error)}`);
  fillTable(area.figure, ["score from", "detections", "mean score", "precision"], bins.map(bin => [bin.from.toFixed(2), bin.count, bin.score.toFixed(3), percent(bin.precision)]));
}

// Horizontal bars with their number: rows of [name, value, text].
function bars(id, label, rows, most) {
  const holder = document.querySelector(`#${id} .plot`), width = Math.max(260, holder.clientWidth || 480), high = 30;
  const left = Math.min(150, 0.36 * width), room = width - left - 74;
  const svg = make("svg", { viewBox: `0 0 ${width} ${rows.length * high + 4}`, role: "img", "aria-label": label });
  rows.forEach(([name, value, text], i) => {
    svg.append(
      make("text", { class: "strong", x: left - 10, y: i * high + 19, "text-anchor": "end" }, name),
      make("rect", { class: "bar-first", x: left, y: i * high + 5, width: Math.max(1, room * Math.max(0, value || 0) / most), height: high - 11, rx: 2 }),
      make("text", { x: left + 7 + room * Math.max(0, value || 0) / most, y: i * high + 19 }, text));
  });
  holder.replaceChildren(svg);
  return holder.closest("figure");
}

function drawKinds() {
  const label = chosen(), errors = data.errors;
  const rows = errors.kinds.map((kind, k) => [kind, label === null ? errors.mean_cost[k] : errors.cost[k][label], label === null ? sum(errors.count[k]) : errors.count[k][label]]);
  rows.push(["all false positives", label === null ? errors.mean_false_positive_cost : errors.false_positive_cost[label], ""]);
  rows.push(["all false negatives", label === null ? errors.mean_false_negative_cost : errors.false_negative_cost[label], ""]);
  const figure = bars("kinds", "AP that each kind of error costs", rows.map(([kind, cost]) => [kind, cost, percent(cost)]), Math.max(.001, ...rows.map(row => row[1] || 0)));
  fillTable(figure, ["kind", "costs", "errors at any score"], rows.map(([kind, cost, count]) => [kind, percent(cost), count]));
}

function drawSizes() {
  const label = chosen(), sizes = data.sizes;
  const rows = sizes.sizes.map((size, k) => [size, label === null ? sizes.mean_ap[k] : sizes.ap[k][label], label === null ? sum(sizes.num_positive[k]) : sizes.num_positive[k][label]]);
  const figure = bars("sizes", "AP by size", rows.map(([size, ap, count]) => [size, ap, `${percent(ap)} (${count.toLocaleString("en")})`]), 1);
  fillTable(figure, ["size", "voc-area", "objects"], rows.map(([size, ap, count]) => [size, percent(ap), count]));
}

function drawDifferences() {
  if (!data.comparison) return;
  const rows = data.comparison.classes.filter(row => row.difference !== null);
  const holder = document.querySelector("#differences .plot");
  const width = Math.max(260, holder.clientWidth || 480), high = 24, left = Math.min(140, .34 * width), right = 20;
  const values = rows.flatMap(row => [row.low ?? 0, row.high ?? 0, row.difference]);
  const least = Math.min(-.01, ...values), most = Math.max(.01, ...values);
  const x = value => left + (width - left - right) * (value - least) / (most - least);
  const svg = make("svg", { viewBox: `0 0 ${width} ${rows.length * high + 26}`, role: "img", "aria-label": "Difference of AP by class" });
  for (const tick of ticks(100 * least, 100 * most)) svg.append(
    make("line", { class: tick ? "grid" : "axis", x1: x(tick / 100), x2: x(tick / 100), y1: 0, y2: rows.length * high + 4 }),
    make("text", { x: x(tick / 100), y: rows.length * high + 20, "text-anchor": "middle" }, String(Number(tick.toFixed(2)))));
  rows.forEach((row, i) => {
    const y = i * high + 13, sure = row.p_value !== null && row.p_value < 1 - data.comparison.confidence;
    svg.append(make("text", { class: "strong", x: left - 10, y: y + 4, "text-anchor": "end" }, row.name));
    if (row.low !== null) svg.append(make("line", { class: "first", x1: x(row.low), x2: x(row.high), y1: y, y2: y }));
    svg.append(make("circle", { class: sure ? "dot" : "ring", r: 5, cx: x(row.difference), cy: y }));
  });
  holder.replaceChildren(svg);
}

function showCards(gallery, limit) {
  const label = chooser.value, cards = [...gallery.querySelectorAll(".card")];
  const fitting = cards.filter(card => label === "" || card.dataset.classes.split(" ").includes(label));
  cards.forEach(card => { card.hidden = true; });
  fitting.slice(0, limit).forEach(card => { card.hidden = false; });
  gallery.dataset.limit = limit;
  gallery.querySelector(".status").textContent = fitting.length ? `Showing ${Math.min(limit, fitting.length)} of ${fitting.length}.` : "";
  gallery.querySelector(".empty").hidden = fitting.length > 0;
  gallery.querySelector(".more").hidden = fitting.length <= limit;
}

function drawAll() {
  for (const draw of [drawPrecisionRecall, drawThresholds, drawHistogram, drawReliability, drawKinds, drawSizes, drawDifferences]) draw();
}

function choose() {
  for (const row of document.querySelectorAll("tbody tr")) row.classList.toggle("chosen", chooser.value !== "" && row.querySelector(".pick")?.dataset.class === chooser.value);
  const best = chosen() === null ? data.best_overall.score_threshold : data.classes[chosen()].score_threshold;
  if (best !== null) slider.value = Math.min(99, Math.floor(100 * best));
  drawAll();
  document.querySelectorAll(".gallery").forEach(gallery => showCards(gallery, PAGE));
}

for (const table of document.querySelectorAll(".sortable")) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const falling = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : column > 0;
    headers.forEach(one => one.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");  // unknown ones last
      const order = column ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b));
      return falling ? -order : order;
    });
    body.append(...rows);
  }));
}
for (const button of document.querySelectorAll(".pick")) button.addEventListener("click", () => {
  chooser.value = chooser.value === button.dataset.class ? "" : button.dataset.class;
  choose();
});
for (const gallery of document.querySelectorAll(".gallery")) gallery.querySelector(".more").addEventListener("click", () => {
  const before = gallery.querySelectorAll(".card:not([hidden])").length;
  showCards(gallery, Number(gallery.dataset.limit) + PAGE);
  const next = gallery.querySelectorAll(".card:not([hidden])")[before];
  if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
});
chooser.addEventListener("change", choose);
slider.addEventListener("input", drawThresholds);
let width = 0;
new ResizeObserver(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; drawAll(); } }).observe(document.body);
window.addEventListener("beforeprint", drawAll);
choose();
