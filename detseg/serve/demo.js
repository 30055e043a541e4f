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
let image = null;      // { blob, loading: a promise of what the browser shows of it, or null }, as chosen last
let answers = [];      // { model, content, picture, milliseconds, map } of each model that is shown
let turn = 0;          // the latest request; what comes for an older one is dropped
let drawnWidth = 0;    // of the column of a picture, for which it was drawn
const hidden = new Set();  // names of classes

const fail = message => { element("error").textContent = message; element("error").hidden = !message; };

async function ask(path, options = {}) {
  const key = element("key").value;
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.status === 401) {
    element("key-form").hidden = false;
    throw new Error(key ? "This key is not right." : "This service needs its key.");
  }
  if (!response.ok) {
    const text = await response.text();
    let message = text;
    try { message = JSON.parse(text).error; } catch { /* not of the service itself */ }
    throw new Error(message || `HTTP ${response.status}`);
  }
  return response;
}

async function start() {
  try {
    service = await (await ask("models")).json();
  } catch (error) {
    return fail(error.message);
  }
  fail("");
  element("key-form").hidden = true;
  element("model").replaceChildren(...service.models.map(model => make("option", { textContent: model.name })));
  fillOthers();
  element("choice").hidden = service.models.length < 2;
  element("finds").replaceChildren(...service.models.map(({ name, task, classes }) => make("p", {}, make("strong", { textContent: name }),
    `${task === "detection" ? " finds " : " gives each pixel one of: "}${listed(classes)}`)));
  document.title = `${service.models.map(model => model.name).join(", ")}: detseg serve`;
  element("threshold").min = service.min_score;
  element("threshold").value = service.score;
  element("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  element("samples").hidden = !service.samples;
  const samples = Array.from({ length: service.samples }, (_, number) => {
    const picture = make("img", { src: `samples/${number}`, alt: `sample ${number + 1}` });
    const button = make("button", { type: "button" }, picture);
    button.addEventListener("click", async () => take(await (await fetch(picture.src)).blob()));
    return button;
  });
  element("samples").replaceChildren(element("samples").firstElementChild, ...samples);
  predict();
}

const listed = names => names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");

function fillOthers() {
  const chosen = element("model").value, before = element("other").value;
  const others = service.models.map(model => model.name).filter(name => name !== chosen);
  element("other").replaceChildren(make("option", { textContent: "no other", value: "" }),
    ...others.map(name => make("option", { textContent: name, value: name })));
  if (others.includes(before)) element("other").value = before;
}

function take(blob) {
  if (!blob) return;
  // The service may read what this browser does not show.
  image = { blob, loading: loaded(URL.createObjectURL(blob)).catch(() => null) };
  service ? predict() : start();
}

function loaded(address) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = reject;
    picture.src = address;
  });
}

// What is shown stays as it is, dimmed, until the answers replace it; an error takes it away.
async function predict() {
  if (!image) return;
  const { blob, loading } = image, mine = ++turn, found = [];
  const names = [element("model").value, element("other").value].filter(Boolean);
  fail("");
  element("key-form").hidden = true;
  element("results").classList.add("old");
  element("more").hidden = true;
  element("status").textContent = "Predicting …";
  try {
    for (const name of names) {  // one after the other, so that they do not slow each other
      const model = service.models.find(one => one.name === name);
      const query = new URLSearchParams({ model: name, masks: "true" });
      if (model.task === "detection") query.set("score", service.min_score);
      const begin = performance.now();
      const headers = { "Content-Type": /^image\//.test(blob.type) ? blob.type : "application/octet-stream" };
      const content = await (await ask(`predict?${query}`, { method: "POST", body: blob, headers })).json();
      const milliseconds = performance.now() - begin, map = content.labels ? await readMap(content.labels, model) : null;
      found.push({ model, content, picture: await loading, milliseconds, map });
    }
  } catch (error) {
    if (mine !== turn) return;
    answers = [];
    for (const id of ["results", "more"]) element(id).hidden = true;
    element("status").textContent = "";
    return fail(error.message);
  }
  if (mine !== turn) return;
  answers = found;
  if (!found[0].picture) fail("This browser cannot show this kind of image; the list below is right all the same.");
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
  const colors = new Map(answers.flatMap(({ model }) => model.classes.map((name, label) => [name, model.colors[label]])));
  const rows = [...colors].map(([name, color]) => {
    const box = make("input", { type: "checkbox", checked: !hidden.has(name), value: name });
    box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](name); draw(); });
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = color;
    return make("label", {}, box, swatch, name, make("span", { className: "count" }));
  });
  element("classes").replaceChildren(element("classes").firstElementChild, ...rows);
  element("score").hidden = !answers.some(({ content }) => content.objects);
  const masked = answers.some(({ content }) => content.objects?.some(one => one.mask));
  element("overlay").hidden = !masked && !answers.some(({ map }) => map);
  element("masks-name").textContent = masked ? "Masks" : "Colours of the classes";
}

const visible = content => content.objects.filter(one => one.score >= Number(element("threshold").value) && !hidden.has(one.name));

function draw() {
  element("at").textContent = Number(element("threshold").value).toFixed(2);
  if (!answers.length) return;
  drawnWidth = columnWidth();
  const allCounts = [];  // of each answer: objects of each class, or its part of the image
  const figures = answers.map(answer => {
    const counts = new Map();
    allCounts.push(counts);
    const { model, content, picture } = answer;
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    const longest = Math.max(content.image.width, content.image.height);
    const scale = Math.min(Math.max(1, MIN_SIDE / longest), MAX_SIDE / longest);
    canvas.width = Math.max(1, Math.round(content.image.width * scale));
    canvas.height = Math.max(1, Math.round(content.image.height * scale));
    const context = canvas.getContext("2d");
    if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const lines = content.objects ? drawObjects(context, answer, scale, counts) : drawMap(context, answer, counts);
    const first = `${lines.length} ${content.objects ? lines.length === 1 ? "object" : "objects" : lines.length === 1 ? "class" : "classes"}`;
    canvas.setAttribute("aria-label", `${model.name}: ${first}`);
    const frame = make("div", { className: "frame" }, canvas);
    const rows = lines.map(({ text, box }) => {
      const row = make("li", { textContent: text });
      if (box) marks(row, frame, box, content.image);
      return row;
    });
    const { decode_ms, predict_ms } = content.timing;
    const times = `${Math.round(answer.milliseconds)} ms in all: ${Math.round(decode_ms)} to decode the image, ${Math.round(predict_ms)} to predict`;
    return { canvas, first, node: make("figure", {}, make("h2", { textContent: model.name, hidden: answers.length < 2 }), frame,
      make("figcaption", {}, make("p", { textContent: times }), make("ol", {}, ...rows))) };
  });
  element("results").classList.toggle("single", answers.length === 1);
  element("results").replaceChildren(...figures.map(figure => figure.node));
  for (const label of element("classes").querySelectorAll("label")) {
    label.querySelector(".count").textContent = allCounts.map(counts => counts.get(label.firstElementChild.value) ?? "–").join(" / ");
  }
  element("whose").textContent = answers.length > 1 ? answers.map(({ model }) => model.name).join(" / ") : "";
  if (element("results").classList.contains("old")) return;  // the line says what is waited for
  element("status").textContent = answers.map(({ model }, i) => `${model.name}: ${figures[i].first}`).join("; ");
  writeJson();
}

// Of what is shown: the objects, or the classes whose pixels are counted.
function json() {
  const shown = answers.map(({ content }) => content.objects ? { ...content, objects: visible(content) }
    : { ...content, pixels: Object.fromEntries(Object.entries(content.pixels).filter(([name]) => !hidden.has(name))) });
  return JSON.stringify(shown.length === 1 ? shown[0] : shown, null, 1);
}

const writeJson = () => { if (element("json").parentElement.open) element("json").textContent = json(); };

// A row of the list shows its box in the picture: by the mouse, or by a tap, until another place is tapped.
function marks(row, frame, [x1, y1, x2, y2], { width, height }) {
  const mark = make("div", { className: "mark" });
  Object.assign(mark.style, { left: `${100 * x1 / width}%`, top: `${100 * y1 / height}%`,
    width: `${100 * (x2 - x1) / width}%`, height: `${100 * (y2 - y1) / height}%` });
  row.tabIndex = -1;
  for (const kind of ["pointerenter", "focus"]) row.addEventListener(kind, () => frame.append(mark));
  for (const kind of ["pointerleave", "blur"]) row.addEventListener(kind, () => mark.remove());
}

function columnWidth() {
  const width = element("results").clientWidth;
  return answers.length > 1 && width > 860 ? width / 2 : answers.length === 1 && width > 760 ? width - 280 : width;
}

function drawObjects(context, { model, content }, scale, counts) {
  const objects = visible(content), { width, height } = context.canvas, colors = toldApart(objects, model.shades);
  if (element("masks").checked) paint(context, content.image, pixels => {
    for (const [i, one] of [...objects.entries()].reverse()) if (one.mask) fillMask(pixels, one.mask, colors[i]);
  });
  const unit = width / Math.min(width, columnWidth());  // pixels of the canvas in one of the page
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
    context.fillStyle = brightness(colors[i]) > 140 ? "#000" : "#fff";
    context.fillText(text, place[0] + 3 * unit, place[1] + high / 2);
  }
  for (const name of model.classes) counts.set(name, 0);
  for (const one of objects) counts.set(one.name, counts.get(one.name) + 1);
  return objects.map(one => ({ text: `${one.name} ${one.score.toFixed(2)}`, box: one.box }));
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
  const colors = model.colors.map(rgb), total = map.length;
  if (element("masks").checked) paint(context, content.image, ({ data }) => {
    for (let i = 0; i < map.length; i++) {
      const color = colors[map[i]];
      if (!color || hidden.has(model.classes[map[i]])) continue;
      data.set(color, 4 * i);
      data[4 * i + 3] = 120;
    }
  });
  const parts = Object.entries(content.pixels).filter(([, number]) => number).sort((a, b) => b[1] - a[1])
    .map(([name, number]) => [name, number < total / 2000 ? "< 0.1 %" : `${(100 * number / total).toFixed(1)} %`]);
  for (const name of model.classes) counts.set(name, "0 %");
  for (const [name, part] of parts) counts.set(name, part);
  return parts.filter(([name]) => !hidden.has(name)).map(([name, part]) => ({ text: `${name} ${part}` }));
}

// What `fill` puts into pixels of the image's size, over what is drawn.
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
const brightness = color => { const [r, g, b] = rgb(color); return 0.299 * r + 0.587 * g + 0.114 * b; };

element("key-form").addEventListener("submit", event => { event.preventDefault(); service ? predict() : start(); });
element("file").addEventListener("change", event => { take(event.target.files[0]); event.target.value = ""; });
element("threshold").addEventListener("input", draw);
element("masks").addEventListener("change", draw);
addEventListener("resize", () => { if (columnWidth() !== drawnWidth) draw(); });  // a phone hides its address bar
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
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => { take([...event.clipboardData.files].find(file => file.type.startsWith("image/"))); });

const closeCamera = () => {
  for (const track of element("video").srcObject?.getTracks() ?? []) track.stop();
  element("video").srcObject = null;
  element("viewfinder").hidden = true;
  element("camera").focus();
};
element("camera").addEventListener("click", async () => {
  try {
    element("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return fail(`The camera cannot be used: ${error.message}`);
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
  still.toBlob(take, "image/jpeg", 0.95);
});
element("close").addEventListener("click", closeCamera);
document.addEventListener("keydown", event => { if (event.key === "Escape" && !element("viewfinder").hidden) closeCamera(); });

start();
