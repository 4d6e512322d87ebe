// The page of `centerdet serve`: one request an image at a low threshold; slider and switches only choose what shows.
"use strict";

const LEAST = 0.05; // score asked of the server, the slider's lower end
const LONGEST = 4096; // px of a downloaded image's longer side
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#f0e442", "#56b4e9", "#e69f00"]; // told apart by the color-blind

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const colors = new Map(); // of class names
const hidden = new Set(); // names of the classes that are switched off; kept from image to image
let bitmap = null; // what the browser decoded, null where it cannot
let result = null; // the server's answer: height, width, objects
let source = null; // the last image file, to send again with a token
let token = "";
let camera = null; // MediaStream while the webcam runs
let running = null; // AbortController of the request under way

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const threshold = () => Number($("threshold").value);
const shown = () => result.objects.filter((one) => one.score >= threshold() && !hidden.has(one.name));

// A class keeps its color; those that show first have all colors to themselves.
function color(name) {
  if (!colors.has(name)) colors.set(name, COLORS[colors.size % COLORS.length]);
  return colors.get(name);
}

async function detect(file) {
  source = file;
  running?.abort();
  const mine = (running = new AbortController());
  if (!camera) say("Detecting …");
  const start = performance.now();
  try {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const decoding = createImageBitmap(file).catch(() => null);
    const request = { method: "POST", body: file, headers, signal: mine.signal };
    const response = await fetch(`detect?score=${LEAST}`, request);
    const answer = await response.json();
    const decoded = await decoding;
    if (mine !== running) return false;
    if (!response.ok) {
      if (response.status === 401) askForToken();
      say(response.status === 401 && !token ? "This server asks for a token." : `Error ${response.status}: ${answer.error}`, true);
      return false;
    }
    bitmap?.close();
    [result, bitmap] = [answer, decoded];
    $("model").textContent = answer.model;
    $("login").hidden = true;
    show();
    const hint = bitmap ? "" : " This browser cannot show such an image.";
    say(`${plural(shown().length, "object")} in ${result.width} × ${result.height} px, ${Math.round(performance.now() - start)} ms.${hint}`);
    return true;
  } catch (error) {
    if (mine === running) say(error.name === "AbortError" ? "Stopped." : "The server does not answer.", true);
    return false;
  }
}

function show() {
  const found = shown();
  $("count").textContent = found.length;
  $("noun").textContent = found.length === 1 ? "object" : "objects";
  $("copy").disabled = $("download").disabled = false;
  found.forEach((one) => color(one.name));
  $("objects").replaceChildren(...found.map(toRow));
  showClasses();
  draw();
}

function toRow(one) {
  const row = document.createElement("tr");
  for (const text of [one.name, one.score.toFixed(2), one.box.map(Math.round).join(", ")]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    cell.className = row.children.length ? "number" : "";
    row.append(cell);
  }
  return row;
}

// One switch for each class that the image has at any score. Those that exist stay, so that the focus stays, too.
function showClasses() {
  const box = $("classes");
  const names = [...new Set(result.objects.map((one) => one.name))];
  if (names.join("\n") !== box.dataset.names) {
    box.dataset.names = names.join("\n");
    box.replaceChildren(...names.map(toSwitch));
    if (!names.length) box.textContent = "None in this image";
  }
  for (const counter of box.querySelectorAll("[data-name]")) {
    const name = counter.dataset.name;
    const count = result.objects.filter((one) => one.name === name && one.score >= threshold()).length;
    counter.textContent = `${name} ${count}`;
    counter.className = count ? "" : "faint";
  }
}

function toSwitch(name) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  const swatch = document.createElement("span");
  const text = document.createElement("span");
  box.type = "checkbox";
  box.checked = !hidden.has(name);
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(name);
    else hidden.add(name);
    show();
  });
  swatch.className = "swatch";
  swatch.style.backgroundColor = color(name);
  text.dataset.name = name;
  label.append(box, swatch, text);
  return label;
}

// As many pixels as the screen shows, so that lines and names are equally large on every image.
function draw() {
  const room = $("view").clientWidth;
  const scale = Math.min(room / result.width, Math.max(320, innerHeight * 0.72) / result.height);
  const [width, height] = [result.width * scale, result.height * scale];
  canvas.hidden = false;
  $("empty").hidden = true;
  $("view").classList.add("full");
  paint(canvas, width * devicePixelRatio, devicePixelRatio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const names = shown().map((one) => `${one.name} ${one.score.toFixed(2)}`);
  canvas.setAttribute("aria-label", `Image with ${plural(names.length, "box").replace("boxs", "boxes")}: ${names.join(", ") || "none"}`);
}

// The image `width` px wide with its boxes; unit: px of a thin line.
function paint(goal, width, unit) {
  const scale = width / result.width;
  goal.width = Math.max(1, Math.round(width));
  goal.height = Math.max(1, Math.round(result.height * scale));
  const pen = goal.getContext("2d");
  if (bitmap) pen.drawImage(bitmap, 0, 0, goal.width, goal.height);
  pen.font = `600 ${13 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const found = shown();
  for (const one of [...found].reverse()) { // the best on top
    const [x1, y1, x2, y2] = one.box.map((side) => side * scale);
    for (const [thick, style] of [[4, "#000a"], [2, color(one.name)]]) {
      pen.lineWidth = thick * unit;
      pen.strokeStyle = style;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
  }
  const tags = []; // places of names that are taken
  for (const one of found) {
    const [x, y] = one.box.map((side) => side * scale);
    const text = `${one.name} ${one.score.toFixed(2)}`;
    const [wide, high] = [pen.measureText(text).width + 8 * unit, 19 * unit];
    const left = Math.max(0, Math.min(x - unit, goal.width - wide));
    let top = y >= high ? y - high : y;
    const collides = (tag) => left < tag.left + tag.wide && tag.left < left + wide && top < tag.top + high && tag.top < top + high;
    for (let next = tags.find(collides); next; next = tags.find(collides)) top = next.top + high;
    tags.push({ left, top, wide });
    pen.fillStyle = color(one.name);
    pen.fillRect(left, top, wide, high);
    pen.fillStyle = isLight(color(one.name)) ? "#000" : "#fff";
    pen.fillText(text, left + 4 * unit, top + high / 2);
  }
}

function isLight(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 125;
}

function download() {
  const goal = document.createElement("canvas");
  const width = result.width * Math.min(1, LONGEST / Math.max(result.width, result.height));
  paint(goal, width, Math.max(1, width / 700));
  goal.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "detections.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

async function copy() {
  const text = JSON.stringify({ ...result, objects: shown() });
  try {
    await navigator.clipboard.writeText(text);
  } catch { // missing where the page is not from this machine and not https
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  say(`Copied ${plural(shown().length, "object")} as JSON.`);
}

function askForToken() {
  $("login").hidden = false;
  $("token").focus();
}

function useToken(event) {
  event.preventDefault();
  token = $("token").value;
  if (source) detect(source);
}

async function startCamera() {
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch (error) {
    return say(`No webcam: ${error.message}`, true);
  }
  showCamera();
  const video = $("video");
  const frame = document.createElement("canvas");
  video.srcObject = camera;
  await video.play();
  while (camera) {
    [frame.width, frame.height] = [video.videoWidth, video.videoHeight];
    frame.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => frame.toBlob(done, "image/jpeg", 0.9));
    if (!camera) break;
    if (!(await detect(blob))) return stopCamera();
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  showCamera();
}

function showCamera() {
  $("camera").textContent = camera ? "Stop webcam" : "Start webcam";
  $("camera").setAttribute("aria-pressed", String(Boolean(camera)));
}

function open(files) {
  if (!files.length) return;
  stopCamera();
  detect(files[0]);
}

$("file").addEventListener("change", (event) => {
  open([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});
$("camera").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
$("camera").hidden = !navigator.mediaDevices; // browsers have it on this machine and over https only
$("download").addEventListener("click", download);
$("copy").addEventListener("click", copy);
$("login").addEventListener("submit", useToken);
$("threshold").addEventListener("input", () => {
  $("threshold-value").textContent = threshold().toFixed(2);
  if (result) show();
});
document.addEventListener("paste", (event) => open([...event.clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("view").classList.toggle("over", name === "dragover");
    if (name === "drop") open([...event.dataTransfer.files]);
  });
}
addEventListener("resize", () => result && draw());
