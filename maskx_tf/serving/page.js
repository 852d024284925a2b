"use strict";
// Sides and letters in pixels of the page, of which a screen may have several for each.
const MOST_SIDE = 1600, LEGIBLE_SIDE = 480, LETTERS = 13;
const element = (id) => document.getElementById(id);
const WARM = [[180, 50, 0], [213, 94, 0], [230, 159, 0]], COOL = [[70, 60, 190], [0, 114, 178], [86, 180, 233]];
const ANY = [[213, 94, 0], [230, 159, 0], [0, 158, 115], [86, 180, 233], [0, 114, 178], [204, 121, 167]];
let kinds = new Map();  // name of a class -> "A" or "B"
let skeleton = [];  // pairs of indices of keypoints between which a line is drawn
let image = null, found = [], hidden = new Set(), asked = 0, took = null;

function say(text, kind = "info") {
  element("status").textContent = text;
  element("status").dataset.kind = kind;
}

function colour(name) {
  let hash = 2166136261;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0;
  const kind = kinds.get(name);
  const stops = kind === "A" ? WARM : kind === "B" ? COOL : ANY;
  const at = (hash / 2 ** 32) * (stops.length - 1), low = Math.floor(at);
  return stops[low].map((value, channel) => Math.round(value + (at - low) * (stops[low + 1][channel] - value)));
}

async function start() {
  try {
    const answer = await (await fetch("labels.json")).json();
    if (answer.error) return say(answer.error, "error");
    element("about").textContent = `${answer.model}, version ${answer.version}, ${answer.labels.length} classes`;
    for (const label of answer.labels) if ("masks" in label) kinds.set(label.name, label.masks ? "A" : "B");
    element("legend").hidden = kinds.size === 0;
    skeleton = answer.skeleton;
  } catch (error) {
    say(`The server does not answer: ${error.message}`, "error");
  }
}

async function asServed(file) {
  if (["image/jpeg", "image/png"].includes(file.type)) return file;
  const bitmap = await createImageBitmap(file);  // such as WebP, which the server does not read
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({type: "image/png"});
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function ask(file) {
  const turn = ++asked;
  took = null;
  say("Looking …");
  try {
    const content = await base64(await asServed(file));
    const request = {inputs: {image_bytes: [{b64: content}]}};
    const begun = performance.now();
    const response = await fetch("v1/models/:predict", {method: "POST", body: JSON.stringify(request)});
    const answer = await response.json();
    if (turn !== asked) return;  // another photograph came meanwhile
    if (!response.ok) throw new Error(answer.error);
    const outputs = answer.outputs;
    if (outputs.image_status[0] !== "ok") throw new Error(outputs.image_status[0]);
    image = await createImageBitmap(file);  // turned upright by its EXIF orientation, as the server does
    found = read(outputs);
    hidden = new Set();
    took = ((performance.now() - begun) / 1000).toFixed(2);
    list();
    draw();
  } catch (error) {
    if (turn === asked) say(error.message || "This is no photograph that can be read.", "error");
  }
}

function read(outputs) {
  const result = [];
  for (let index = 0; index < outputs.num_detections[0]; index++) {
    const [top, left, bottom, right] = outputs.detection_boxes[0][index];
    result.push({
      box: [left, top, right, bottom],
      score: outputs.detection_scores[0][index],
      name: outputs.detection_class_names[0][index],
      mask: outputs.detection_masks ? outputs.detection_masks[0][index] : null,
      points: outputs.detection_keypoints ? outputs.detection_keypoints[0][index] : [],
    });
  }
  return result;
}

function visible() {
  const least = Number(element("score").value);
  return found.filter((one) => one.score >= least && !hidden.has(one.name));
}

function list() {
  const counts = new Map();
  const least = Number(element("score").value);
  for (const one of found) counts.set(one.name, (counts.get(one.name) || 0) + (one.score >= least));
  const items = [...counts].sort((one, other) => other[1] - one[1] || one[0].localeCompare(other[0]));
  element("classes").replaceChildren(...items.map(([name, count]) => {
    const item = document.createElement("li"), label = document.createElement("label");
    const box = document.createElement("input"), swatch = document.createElement("span");
    const text = document.createElement("span"), number = document.createElement("span");
    box.type = "checkbox";
    box.checked = !hidden.has(name);
    box.dataset.name = name;
    box.onchange = () => { box.checked ? hidden.delete(name) : hidden.add(name); draw(); };
    swatch.className = "swatch" + (kinds.get(name) === "B" ? " b" : "");
    swatch.style.borderColor = `rgb(${colour(name)})`;
    text.textContent = name;
    number.className = "count";
    number.textContent = count;
    label.append(box, swatch, text);
    if (kinds.has(name)) {
      const kind = document.createElement("span");
      kind.className = "kind";
      kind.textContent = kinds.get(name);
      label.append(kind);
    }
    label.append(number);
    item.append(label);
    return item;
  }));
}

// The mask's cells at the centres of the box's pixels, as the client pastes them.
function paintMask(context, mask, [x1, y1, x2, y2], [red, green, blue]) {
  const left = Math.max(Math.ceil(x1 - .5), 0), right = Math.min(Math.ceil(x2 - .5), context.canvas.width);
  const top = Math.max(Math.ceil(y1 - .5), 0), bottom = Math.min(Math.ceil(y2 - .5), context.canvas.height);
  if (right <= left || bottom <= top) return;
  const pixels = context.getImageData(left, top, right - left, bottom - top), side = mask.length;
  const cell = (row, column) => row < 0 || column < 0 || row >= side || column >= side ? 0 : mask[row][column];
  for (let y = top, at = 0; y < bottom; y++) {
    const v = (y + .5 - y1) / (y2 - y1) * side - .5, row = Math.floor(v), down = v - row;
    for (let x = left; x < right; x++, at += 4) {
      const u = (x + .5 - x1) / (x2 - x1) * side - .5, column = Math.floor(u), along = u - column;
      const value = (1 - down) * ((1 - along) * cell(row, column) + along * cell(row, column + 1))
        + down * ((1 - along) * cell(row + 1, column) + along * cell(row + 1, column + 1));
      if (value < 127.5) continue;
      pixels.data[at] = .55 * pixels.data[at] + .45 * red;
      pixels.data[at + 1] = .55 * pixels.data[at + 1] + .45 * green;
      pixels.data[at + 2] = .55 * pixels.data[at + 2] + .45 * blue;
    }
  }
  context.putImageData(pixels, left, top);
}

// The width that the page has for the picture.
function room() {
  const style = getComputedStyle(element("drop"));
  return element("drop").clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

// The first text that the canvas has room for, or as much of the last one's beginning.
function fitted(context, texts) {
  const fits = (text) => context.measureText(text).width + 6 <= context.canvas.width;
  let [text, rest] = [texts.find(fits), texts.at(-1)];
  while (text === undefined) {
    rest = rest.slice(0, -1);
    if (!rest || fits(`${rest}…`)) text = rest && `${rest}…`;
  }
  return text;
}

// Lines of the skeleton and a dot for each keypoint; a class without keypoints has all of them at 0, 0.
function paintPoints(context, points, line, paint) {
  if (!points.some(([y, x]) => y || x)) return;
  const places = points.map(([y, x]) => [x * context.canvas.width, y * context.canvas.height]);
  context.setLineDash([]);
  context.lineWidth = 2 * line;
  context.strokeStyle = context.fillStyle = `rgb(${paint})`;
  context.beginPath();
  for (const [one, other] of skeleton) {
    context.moveTo(...places[one]);
    context.lineTo(...places[other]);
  }
  context.stroke();
  for (const [x, y] of places) {
    context.beginPath();
    context.arc(x, y, 2 * line, 0, 2 * Math.PI);
    context.fill();
  }
}

function draw() {
  if (!image) return;
  const canvas = element("canvas"), side = Math.max(image.width, image.height);
  const scale = Math.min(Math.max(1, LEGIBLE_SIDE / side), MOST_SIDE / side, room() / image.width);
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(image.width * scale * density));
  canvas.height = Math.max(1, Math.round(image.height * scale * density));
  canvas.style.width = `${canvas.width / density}px`;
  canvas.style.display = "block";
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const shown = visible().map((one) => ({...one, paint: colour(one.name), edges: one.box.map(
    (value, index) => value * (index % 2 ? canvas.height : canvas.width))}));
  if (element("masks").checked)
    for (const one of [...shown].reverse()) if (one.mask) paintMask(context, one.mask, one.edges, one.paint);
  const line = Math.max(1, Math.round(Math.sqrt(canvas.width * canvas.height) / 350)), size = LETTERS * density;
  for (const one of [...shown].reverse()) paintPoints(context, one.points, line, one.paint);
  context.font = `${size}px system-ui, sans-serif`;
  for (const one of element("boxes").checked ? [...shown].reverse() : []) {
    const [x1, y1, x2, y2] = one.edges, isB = kinds.get(one.name) === "B";
    context.setLineDash(isB ? [4 * line, 3 * line] : []);
    context.lineWidth = line;
    context.strokeStyle = `rgb(${one.paint})`;
    context.strokeRect(x1 + line / 2, y1 + line / 2, Math.max(x2 - x1 - line, 1), Math.max(y2 - y1 - line, 1));
    const name = `${isB ? "B " : ""}${one.name}`, text = fitted(context, [`${name} ${one.score.toFixed(2)}`, name]);
    const width = context.measureText(text).width + 6;
    const left = Math.max(0, Math.min(x1, canvas.width - width));
    const top = Math.max(0, Math.min(y1 - size * 1.3, canvas.height - size * 1.3));
    context.fillStyle = `rgb(${one.paint})`;
    context.fillRect(left, top, width, size * 1.3);
    context.fillStyle = one.paint[0] * .3 + one.paint[1] * .59 + one.paint[2] * .11 > 110 ? "#000" : "#fff";
    context.fillText(text, left + 3, top + size);
  }
  canvas.dataset.shown = shown.length;
  if (took !== null) say(`${shown.length} of ${found.length} found in ${took} s`);
}

element("file").onchange = (event) => { if (event.target.files.length) ask(event.target.files[0]); };
element("score").oninput = (event) => {
  element("shown").textContent = Number(event.target.value).toFixed(2);
  list();
  draw();
};
element("boxes").onchange = element("masks").onchange = window.onresize = draw;
for (const name of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}
start();
