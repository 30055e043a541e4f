// An image goes to the service once; thresholds, classes and masks then change what is drawn of its answer.
"use strict";

const element = id => document.getElementById(id);
const make = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const MAX_SIDE = 1600, MIN_SIDE = 800;  // of what is drawn, pixels: the longer side

let service = null;    // what /models says
let image = null;      // as chosen last: { blob, note, loading: a promise of the browser's picture of it, picture: what is drawn }
let answers = [];      // { model, content, source: the image, milliseconds, map } of each model that is shown
let turn = 0;          // the latest request; older ones are aborted, and what still comes for them is dropped
let asking = new AbortController();
let chosen = "";       // the name in "Model"
let drawnUnits = "";   // for which the pictures were drawn
const hidden = new Set();  // names of classes

const fail = (message, again = false) => {
  element("error").textContent = message;
  element("error").hidden = !message;
  element("again").hidden = !again;
};

// What is shown stays as it is, dimmed, until the next answers replace it; an error takes it away.
function nextTurn() {
  asking.abort();
  asking = new AbortController();
  fail("");
  element("results").classList.add("old");
  element("more").hidden = true;
  element("status").textContent = "Predicting …";
  return ++turn;
}

function giveUp(message, again) {
  answers = [];
  for (const id of ["controls", "results", "more"]) element(id).hidden = true;
  element("status").textContent = "";
  fail(message, again);
}

// What the service answers: an object of JSON, or the blob of an image. Errors say whether trying again may help.
async function ask(path, options = {}) {
  const key = element("key").value, failure = (message, again) => Object.assign(new Error(message), { again });
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw failure("The service does not answer. Is it still running?", true);
  }
  const { ok, status } = response, isImage = ok && response.headers.get("content-type")?.startsWith("image/");
  if (status === 401) {
    element("key-form").hidden = false;
    throw failure(key ? "This key is not right." : "This service needs its key.");
  }
  const answer = await (isImage ? response.blob() : response.json()).catch(() => null);
  if (!answer || (!ok && !answer.error)) throw failure(`HTTP ${status}: the answer is not the service's.`, true);
  if (status === 400 && answer.error.startsWith("model:")) throw failure("The models have changed: reload the page.");
  if (!ok) throw failure(answer.error, status >= 500 || status === 408);
  return answer;
}

async function start() {
  try {
    service = await ask("models");
  } catch (error) {
    return giveUp(error.message, error.again);
  }
  fail("");
  element("key-form").hidden = true;
  element("model").replaceChildren(...service.models.map(model => make("option", { textContent: model.name })));
  chosen = element("model").value;
  fillOthers();
  element("choice").hidden = service.models.length < 2;
  element("finds").replaceChildren(...service.models.map(({ name, task, classes }) => make("p", {}, make("strong", { textContent: name }),
    `${task === "detection" ? " finds " : " gives each pixel one of: "}${listed(classes)}`)));
  document.title = `${service.models.map(model => model.name).join(", ")}: detseg serve`;
  element("threshold").min = service.min_score;
  element("threshold").value = service.score;
  navigator.mediaDevices?.enumerateDevices().then(devices => {  // without TLS a page has none
    element("camera").hidden = !devices.some(device => device.kind === "videoinput");
  });
  element("samples").hidden = !service.samples;
  const samples = Array.from({ length: service.samples }, (_, number) => {
    const picture = make("img", { src: `samples/${number}`, alt: `sample ${number + 1}` });
    const button = make("button", { type: "button" }, picture);
    button.addEventListener("click", () => ask(`samples/${number}`).then(take, error => giveUp(error.message)));
    return button;
  });
  element("samples").replaceChildren(element("samples").firstElementChild, ...samples);
  predict();
}

const listed = names => names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");

// A model that was compared with and is now chosen changes places with the one before.
function fillOthers() {
  const former = chosen, before = element("other").value;
  chosen = element("model").value;
  const others = service.models.map(model => model.name).filter(name => name !== chosen);
  element("other").replaceChildren(make("option", { textContent: "no other", value: "" }),
    ...others.map(name => make("option", { textContent: name, value: name })));
  element("other").value = before === chosen ? former : before;
}

const proceed = () => service ? predict() : start();

async function take(file, note = "") {
  image = null;
  if (!element("viewfinder").hidden) closeCamera();
  const mine = nextTurn(), mebibytes = number => `${Math.ceil(10 * number / 2 ** 20) / 10} MiB`;
  if (file.size > service?.max_bytes) {
    return giveUp(`This file has ${mebibytes(file.size)}; this service takes up to ${mebibytes(service.max_bytes)}.`);
  }
  const data = await file.arrayBuffer().catch(() => null);  // once: the file may change or go
  if (mine !== turn) return;
  if (!data) return giveUp("This file cannot be read: it is a folder, or it has gone.");
  const blob = new Blob([data], { type: file.type });
  image = { blob, note, loading: loadedBlob(blob).catch(() => null), picture: null };
  proceed();
}

function loaded(address) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = reject;
    picture.src = address;
  });
}

function loadedBlob(blob) {
  const address = URL.createObjectURL(blob);
  return loaded(address).finally(() => URL.revokeObjectURL(address));
}

// An image as the model sees it, in the size in which it is drawn; null where nothing can show it.
async function pictureOf({ blob, loading }, model, { width, height }, options) {
  let picture = await loading;
  const head = new Uint8Array(await blob.slice(0, 21).arrayBuffer());
  // Chromium does not turn a WebP as its EXIF says; it has EXIF if bit 3 says so.
  const hasExif = String.fromCharCode(...head.slice(8, 16)) === "WEBPVP8X" && head[20] & 8;
  if (hasExif || picture?.naturalWidth !== width || picture.naturalHeight !== height) {  // or it cannot be shown at all
    picture = await ask(`predict?${new URLSearchParams({ model, format: "decoded" })}`, options).then(loadedBlob).catch(() => null);
  }
  if (!picture) return null;
  const canvas = canvasFor({ width, height }), context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);  // what is transparent is black to a model
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const scaleOf = ({ width, height }) => Math.min(Math.max(1, MIN_SIDE / Math.max(width, height)), MAX_SIDE / Math.max(width, height));

function canvasFor(size) {
  const [width, height] = [size.width, size.height].map(side => Math.max(1, Math.round(side * scaleOf(size))));
  return make("canvas", { width, height });
}

async function predict() {
  if (!image) return;
  const mine = nextTurn(), { signal } = asking, current = image, found = [];
  const names = [element("model").value, element("other").value].filter(Boolean);
  element("key-form").hidden = true;
  let problem = null;
  try {
    for (const name of names) {  // one after the other, so that they do not slow each other
      const model = service.models.find(one => one.name === name);
      const query = new URLSearchParams({ model: name, masks: "true" });
      if (model.task === "detection") query.set("score", service.min_score);
      const begin = performance.now();
      const headers = { "Content-Type": /^image\//.test(current.blob.type) ? current.blob.type : "application/octet-stream" };
      const options = { method: "POST", body: current.blob, headers, signal };
      const content = await ask(`predict?${query}`, options), milliseconds = performance.now() - begin;
      if (mine !== turn) return;
      const map = content.labels ? await readMap(content.labels, model) : null;
      current.picture ??= await pictureOf(current, name, content.image, options);
      if (mine !== turn) return;
      found.push({ model, content, source: current, milliseconds, map });
    }
  } catch (error) {
    if (mine !== turn) return;
    if (!found.length) return giveUp(error.message, error.again);
    problem = error;
  }
  answers = found;
  document.body.classList.add("used");
  if (problem) fail(`${names[found.length]}: ${problem.message}`, problem.again);
  else if (!current.picture) fail("This browser cannot show this kind of image; the list is right all the same.");
  element("results").classList.remove("old");
  for (const id of ["controls", "results", "more"]) element(id).hidden = false;
  listClasses();
  draw();
}

// The label of each pixel, by its colour.
async function readMap(base64, model) {
  const picture = await loaded(`data:image/png;base64,${base64}`);
  const context = make("canvas", { width: picture.width, height: picture.height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  const labels = new Map(model.colors.map((color, label) => [parseInt(color.slice(1), 16), label]).reverse());
  const map = new Uint8Array(data.length / 4);
  for (let i = 0; i < map.length; i++) map[i] = labels.get((data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2]) ?? 255;
  return map;
}

function listClasses() {
  const colors = new Map();  // of each name; two models may differ in it
  for (const { model } of answers) for (const [label, name] of model.classes.entries()) {
    colors.set(name, (colors.get(name) ?? new Set()).add(model.colors[label]));
  }
  const rows = [...colors].map(([name, own]) => {
    const box = make("input", { type: "checkbox", checked: !hidden.has(name), value: name });
    box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](name); draw(); });
    const swatches = [...own].map(color => make("span", { className: "swatch", style: `background: ${color}` }));
    return make("label", {}, box, ...swatches, name, make("span", { className: "count" }));
  });
  element("classes").replaceChildren(element("classes").firstElementChild, ...rows);
  element("score").hidden = !answers.some(({ content }) => content.objects);
  const masked = answers.some(({ content }) => content.objects?.some(one => one.mask));
  element("overlay").hidden = !masked && !answers.some(({ map }) => map);
  element("masks-name").textContent = masked ? "Masks" : "Colours of the classes";
  element("copied").textContent = answers.some(({ map }) => map) ? "of what is shown; a map stays whole" : "of what is shown";
}

// Scores are compared as they are printed.
const sure = content => content.objects.filter(one => Number(one.score.toFixed(2)) >= Number(element("at").textContent));
const visible = content => sure(content).filter(one => !hidden.has(one.name));

function draw() {
  element("at").textContent = Number(element("threshold").value).toFixed(2);
  if (!answers.length) return;
  const allCounts = [];  // of each answer: objects of each class, or its part of the image
  const figures = answers.map(answer => {
    const counts = new Map();
    allCounts.push(counts);
    const { model, content, source: { picture } } = answer;
    const canvas = canvasFor(content.image), context = canvas.getContext("2d");
    canvas.setAttribute("role", "img");
    if (picture) context.drawImage(picture, 0, 0);
    const lines = content.objects ? drawObjects(context, answer, counts) : drawMap(context, answer, counts);
    const first = summary(content, lines.length);
    canvas.setAttribute("aria-label", `${model.name}: ${first}`);
    const frame = make("div", { className: "frame" }, canvas);
    const rows = lines.map(({ text, box }) => {
      const row = make("li", { textContent: text });
      if (box) marks(row, frame, box, content.image);
      return row;
    });
    if (lines[0]?.box) rows[0].tabIndex = 0;  // the arrow keys reach the others
    const { decode_ms, predict_ms } = content.timing;
    const times = `${Math.round(answer.milliseconds)} ms in all: ${Math.round(decode_ms)} to decode the image, ${Math.round(predict_ms)} to predict`;
    return { canvas, first, node: make("figure", {}, make("h2", { textContent: model.name, hidden: answers.length < 2 }), frame,
      make("figcaption", {}, make("p", { textContent: times }), make("ol", {}, ...rows),
        make("p", { textContent: "Objects of one class that touch differ in colour.", hidden: !lines.some(({ isShaded }) => isShaded) }))) };
  });
  element("results").classList.toggle("single", answers.length === 1);
  element("results").replaceChildren(...figures.map(figure => figure.node));
  for (const label of element("classes").querySelectorAll("label")) {
    label.querySelector(".count").textContent = allCounts.map(counts => counts.get(label.firstElementChild.value) ?? "–").join(" / ");
  }
  element("whose").textContent = answers.length > 1 ? answers.map(({ model }) => model.name).join(" / ") : "";
  drawnUnits = units();
  if (element("results").classList.contains("old")) return;  // the line says what is waited for
  element("status").textContent = answers[0].source.note + answers.map(({ model }, i) => `${model.name}: ${figures[i].first}`).join("; ");
  writeJson();
}

function summary({ objects }, number) {
  if (!objects) return `${number} ${number === 1 ? "class" : "classes"}`;
  if (number) return `${number} ${number === 1 ? "object" : "objects"}`;
  if (!objects.length) return `nothing was found, even at ${service.min_score}`;
  return `0 of ${objects.length} objects ${sure({ objects }).length ? "are of the ticked classes" : `score ${element("at").textContent} or more`}`;
}

// Of what is shown: the objects, or the classes whose pixels are counted.
function json() {
  const withMask = one => element("masks").checked ? one : { ...one, mask: undefined };
  const shown = answers.map(({ content }) => content.objects ? { ...content, objects: visible(content).map(withMask) }
    : { ...content, pixels: Object.fromEntries(Object.entries(content.pixels).filter(([name]) => !hidden.has(name))) });
  return JSON.stringify(shown.length === 1 ? shown[0] : shown, null, 1);
}

const writeJson = () => { if (element("json").parentElement.open) element("json").textContent = json(); };

// A row of the list shows its box in the picture: by the mouse, by the arrow keys, or by a tap, until another place is tapped.
function marks(row, frame, [x1, y1, x2, y2], { width, height }) {
  const mark = make("div", { className: "mark" });
  Object.assign(mark.style, { left: `${100 * x1 / width}%`, top: `${100 * y1 / height}%`,
    width: `${100 * (x2 - x1) / width}%`, height: `${100 * (y2 - y1) / height}%` });
  row.tabIndex = -1;
  for (const kind of ["pointerenter", "focus"]) row.addEventListener(kind, () => frame.append(mark));
  for (const kind of ["pointerleave", "blur"]) row.addEventListener(kind, () => mark.remove());
  row.addEventListener("keydown", event => {
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (next) { event.preventDefault(); next.focus(); }
  });
}

function columnWidth() {
  const width = element("results").clientWidth;
  return answers.length > 1 && width > 860 ? width / 2 : answers.length === 1 && width > 760 ? width - 280 : width;
}

// Pixels of a canvas in one of the page; style sheet and column make it smaller.
const unitOf = ({ width, height }) => Math.max(1, width / columnWidth(), height / (0.78 * innerHeight));
const units = () => [...document.querySelectorAll("canvas")].map(unitOf).join();

function drawObjects(context, { model, content }, counts) {
  const objects = visible(content), { width, height } = context.canvas, colors = toldApart(objects, model.shades);
  if (element("masks").checked) paint(context, content.image, pixels => {
    for (const [i, one] of [...objects.entries()].reverse()) if (one.mask) fillMask(pixels, one.mask, colors[i]);
  });
  const unit = unitOf(context.canvas), scale = scaleOf(content.image);
  context.lineWidth = 2 * unit;
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const boxes = objects.map(one => one.box.map(value => value * scale));
  for (const [i, [x1, y1, x2, y2]] of [...boxes.entries()].reverse()) {  // the surest on top
    context.strokeStyle = colors[i];
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  const taken = [], high = 16 * unit;  // labels
  for (const [i, one] of objects.entries()) {  // the surest choose first
    const text = shortened(context, one.name, ` ${one.score.toFixed(2)}`, width - 6 * unit);
    const place = placed(boxes[i], context.measureText(text).width + 6 * unit, high, boxes, taken, width, height);
    if (!place) continue;  // the list has it
    taken.push(place);
    context.fillStyle = colors[i];
    context.fillRect(place[0], place[1], place[2] - place[0], high);
    context.fillStyle = luminance(colors[i]) > 0.179 ? "#000" : "#fff";  // the one of more contrast
    context.fillText(text, place[0] + 3 * unit, place[1] + high / 2);
  }
  for (const name of model.classes) counts.set(name, 0);
  for (const one of sure(content)) counts.set(one.name, counts.get(one.name) + 1);
  return objects.map(({ name, score, box, label }, i) => ({ text: `${name} ${score.toFixed(2)}`, box, isShaded: colors[i] !== model.colors[label] }));
}

// A colour for each object, the class's own unless it touches another of its class; as detseg.draw does it.
function toldApart(objects, shades) {
  const numbers = [];
  for (const { box, label } of objects) {
    const used = new Set(numbers.filter((_, i) => {
      const other = objects[i];
      return other.label === label && other.box[0] <= box[2] && other.box[1] <= box[3] && other.box[2] >= box[0] && other.box[3] >= box[1];
    }));
    let number = 0;
    while (used.has(number)) number++;
    numbers.push(number);
  }
  return objects.map(({ label }, i) => shades[label][numbers[i] % shades[label].length]);
}

// A name and its score, of which the name is cut where both are wider than the picture.
function shortened(context, name, score, most) {
  let kept = name;
  while (kept && context.measureText((kept === name ? kept : `${kept}…`) + score).width > most) kept = kept.slice(0, -1);
  return (kept === name ? kept : `${kept}…`) + score;
}

// Where the label of a box lies, null where there is no room: in the picture, over no other label, and over little of any box.
function placed(own, wide, high, boxes, taken, width, height) {
  const covered = ([x1, y1, x2, y2], [a1, b1, a2, b2]) => Math.max(0, Math.min(x2, a2) - Math.max(x1, a1)) * Math.max(0, Math.min(y2, b2) - Math.max(y1, b1));
  const [x1, y1, x2, y2] = own;
  for (const [x, y] of [[x1, y1 - high], [x2 - wide, y1 - high], [x1, y2], [x2 - wide, y2], [x1, y1], [x1, y2 - high]]) {
    const left = Math.max(0, Math.min(x, width - wide)), place = [left, y, left + wide, y + high];
    if (y < 0 || y + high > height || taken.some(other => covered(place, other))) continue;
    const most = 0.25;  // of a box, by this label and the others; as detseg.draw has it
    if (boxes.every(box => !covered(place, box) || [place, ...taken].reduce((sum, one) => sum + covered(one, box), 0) <= most * (box[2] - box[0]) * (box[3] - box[1]))) return place;
  }
  return null;
}

function drawMap(context, { model, content, map }, counts) {
  const total = map.length, { image: size } = content, table = new Uint32Array(256);  // ABGR by label, in the order of the bytes
  model.colors.forEach((color, label) => {
    const [red, green, blue] = rgb(color);
    if (!hidden.has(model.classes[label])) table[label] = (120 << 24) | (blue << 16) | (green << 8) | red;
  });
  if (element("masks").checked) paint(context, context.canvas, ({ data, width, height }) => {
    const pixels = new Uint32Array(data.buffer);
    for (let y = 0, i = 0; y < height; y++) {
      const row = Math.floor((y + 0.5) * size.height / height) * size.width;
      for (let x = 0; x < width; x++, i++) pixels[i] = table[map[row + Math.floor((x + 0.5) * size.width / width)]];
    }
  });
  const parts = Object.entries(content.pixels).filter(([, number]) => number).sort((a, b) => b[1] - a[1])
    .map(([name, number]) => [name, number < total / 2000 ? "< 0.1 %" : `${(100 * number / total).toFixed(1)} %`]);
  for (const name of model.classes) counts.set(name, "0 %");
  for (const [name, part] of parts) counts.set(name, part);
  return parts.filter(([name]) => !hidden.has(name)).map(([name, part]) => ({ text: `${name} ${part}` }));
}

// What `fill` puts into pixels of some size, over what is drawn.
function paint(context, { width, height }, fill) {
  const layer = make("canvas", { width, height }), over = layer.getContext("2d"), pixels = over.createImageData(width, height);
  fill(pixels);
  over.putImageData(pixels, 0, 0);
  context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
}

// COCO's compressed run lengths: six bits a character, five of them a digit; from the third on a difference.
function fillMask({ data, width }, { size: [height], counts }, color) {
  const [red, green, blue] = rgb(color), runs = [];
  for (let i = 0; i < counts.length;) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(i++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) value |= -1 << shift;
    runs.push(value + (runs.length > 2 ? runs[runs.length - 2] : 0));
  }
  let at = 0;
  runs.forEach((length, number) => {
    if (number % 2) for (let k = at; k < at + length; k++) {
      const place = 4 * ((k % height) * width + Math.floor(k / height));
      data[place] = red; data[place + 1] = green; data[place + 2] = blue; data[place + 3] = 120;
    }
    at += length;
  });
}

const rgb = color => [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));

function luminance(color) {  // of WCAG 2
  const [red, green, blue] = rgb(color).map(value => value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

element("key-form").addEventListener("submit", event => { event.preventDefault(); proceed(); });
element("again").addEventListener("click", proceed);
element("file").addEventListener("change", event => { take(event.target.files[0]); event.target.value = ""; });
element("threshold").addEventListener("input", draw);
element("masks").addEventListener("change", draw);
addEventListener("resize", () => { if (units() !== drawnUnits) draw(); });  // not when a phone hides its address bar
element("model").addEventListener("change", () => { fillOthers(); predict(); });
element("other").addEventListener("change", predict);
for (const [id, none] of [["all", false], ["none", true]]) element(id).addEventListener("click", () => {
  hidden.clear();
  for (const box of element("classes").querySelectorAll("input")) { box.checked = !none; if (none) hidden.add(box.value); }
  draw();
});
element("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(json());
    element("copy").textContent = "Copied";
  } catch {  // not allowed, as on a page without TLS: it is selected instead
    element("more").querySelector("details").open = true;
    writeJson();
    getSelection().selectAllChildren(element("json"));
    element("copy").textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { element("copy").textContent = "Copy JSON"; }, 2000);
});

element("json").parentElement.addEventListener("toggle", writeJson);

document.addEventListener("dragover", event => { event.preventDefault(); element("drop").classList.add("over"); });
document.addEventListener("dragleave", event => { if (!event.relatedTarget) element("drop").classList.remove("over"); });
document.addEventListener("drop", event => {
  event.preventDefault();
  element("drop").classList.remove("over");
  const { files } = event.dataTransfer;
  if (!files.length) return fail("There is no image in what was dropped.");
  take(files[0], files.length > 1 ? `The first of ${files.length} files. ` : "");
});
document.addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(one => one.type.startsWith("image/"));
  if (file) take(file);
});

const closeCamera = () => {
  for (const track of element("video").srcObject?.getTracks() ?? []) track.stop();
  element("video").srcObject = null;
  element("viewfinder").hidden = true;
  element("camera").disabled = false;
  element("camera").focus();
};
element("camera").addEventListener("click", async () => {
  element("camera").disabled = true;  // until it is closed: a second stream would leave the first one on
  try {
    element("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    closeCamera();
    return fail(error.name === "NotFoundError" ? "There is no camera." : `The camera cannot be used: ${error.message}`);
  }
  fail("");
  element("viewfinder").hidden = false;
  element("shoot").focus();
});
element("shoot").addEventListener("click", () => {
  const video = element("video"), still = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  if (!still.width) return;
  still.getContext("2d").drawImage(video, 0, 0);
  closeCamera();
  still.toBlob(blob => take(blob), "image/jpeg", 0.95);
});
element("close").addEventListener("click", closeCamera);
document.addEventListener("keydown", event => { if (event.key === "Escape" && !element("viewfinder").hidden) closeCamera(); });

start();
