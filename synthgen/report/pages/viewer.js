"use strict";
// The page holds every cube as whole numbers q of `bits` bits: reflectance = top of its band * (q / most)^2.
const data = JSON.parse(document.getElementById("data").textContent);
const [rows, columns] = data.size, pixels = rows * columns, bands = data.wavelengths.length;
const most = data.bits === 16 ? 65535 : 255;
const COLOURS = { artery: "#e5484d", vein: "#4f7df0", disc: "#e0b020", macula: "#5fae4b", cup: "#c98a10",
  crossing: "#b45cd6" };
const at = id => document.getElementById(id);
const make = (tag, text = "", kind = "") => {
  const node = document.createElement(tag);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
};

function bytesOf(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

const decoded = new Map();
function stored(index) { // the whole numbers [bands, rows, columns] of a cube, decoded when first looked at
  if (!decoded.has(index)) {
    const bytes = bytesOf(data.cubes[index].data);
    decoded.set(index, data.bits === 16 ? new Uint16Array(bytes.buffer) : bytes);
  }
  return decoded.get(index);
}
const value = (index, band, pixel) => data.tops[band] * (stored(index)[band * pixels + pixel] / most) ** 2;
const spectrum = (index, pixel) => data.wavelengths.map((_, band) => value(index, band, pixel));

const masks = new Map();
function mask(index, name) { // one bit a pixel, the first pixel in the highest bit
  const key = index + " " + name;
  if (!masks.has(key)) masks.set(key, bytesOf(data.cubes[index].masks[name]));
  return masks.get(key);
}
const inside = (bits, pixel) => (bits[pixel >> 3] >> (7 - (pixel & 7))) & 1;

const nearest = nm => data.wavelengths.reduce(
  (best, w, i) => Math.abs(w - nm) <= Math.abs(data.wavelengths[best] - nm) ? i : best, 0); // the longer of two as near
const rgb = data.colour_nm.map(nearest);

const stretches = new Map();
function stretch(index, band) { // 1st and 99th percentile of the lit pixels, as stored
  const key = index + " " + band;
  if (!stretches.has(key)) {
    const plane = stored(index).subarray(band * pixels, (band + 1) * pixels);
    const lit = Array.from(plane).filter(q => q > 0).sort((a, b) => a - b);
    const low = lit[Math.floor(0.01 * (lit.length - 1))] || 0, high = lit[Math.floor(0.99 * (lit.length - 1))] || 1;
    stretches.set(key, [data.tops[band] * (low / most) ** 2, data.tops[band] * (high / most) ** 2]);
  }
  return stretches.get(key);
}

const state = { cube: 0, beside: -1, band: Math.floor(bands / 2), colour: true, structures: [], log: false, points: [] };

function paint(canvas, index, colour, shown) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows), out = image.data;
  const used = colour ? rgb : [state.band, state.band, state.band];
  const ends = used.map(b => colour ? stretch(index, b) : [0, data.whites[state.band]]);
  for (let p = 0; p < pixels; p++) {
    for (let k = 0; k < 3; k++) {
      const [low, high] = ends[k];
      out[4 * p + k] = 255 * Math.min(Math.max((value(index, used[k], p) - low) / Math.max(high - low, 1e-9), 0), 1);
    }
    out[4 * p + 3] = 255;
  }
  for (const name of shown) {
    if (!(name in data.cubes[index].masks)) continue;
    const bits = mask(index, name), tint = [1, 3, 5].map(i => parseInt(COLOURS[name].slice(i, i + 2), 16));
    for (let p = 0; p < pixels; p++) if (inside(bits, p))
      for (let k = 0; k < 3; k++) out[4 * p + k] = 0.5 * out[4 * p + k] + 0.5 * tint[k];
  }
  context.putImageData(image, 0, 0);
}

const other = () => state.beside >= 0 ? state.beside : data.cubes[state.cube].partner ?? -1;
const nmOf = band => `${Math.round(data.wavelengths[band])} nm`;
const percent = v => `${(100 * v).toPrecision(3)} %`;

function draw() {
  const left = data.cubes[state.cube], second = other();
  at("band").value = state.band;
  at("nm").textContent = nmOf(state.band);
  at("colour").checked = state.colour;
  at("log").checked = state.log;
  at("structures").checked = state.structures.length > 0;
  at("beside").value = state.beside;
  at("legend").hidden = !state.structures.length;
  for (const box of at("legend").querySelectorAll("input")) box.checked = state.structures.includes(box.value);
  paint(at("left"), state.cube, state.colour, state.structures);
  at("left-name").textContent = `${left.kind}: ${left.name}` + (left.found ? ` (structures: ${left.found})` : "");
  const shown = second >= 0;
  at("stage").className = shown ? "" : "single";
  at("beside").options[0].textContent = left.partner === null ? "nothing" : "its partner";
  if (shown) {
    paint(at("right"), second, state.colour, state.structures);
    const cube = data.cubes[second];
    at("right-name").textContent = `${cube.kind}: ${cube.name}` +
      (state.beside < 0 && left.partner_note ? ` (${left.partner_note})` : "");
  }
  const how = state.colour ? "false colour" : nmOf(state.band);
  at("left").setAttribute("aria-label", `${left.kind} cube ${left.name}, ${how}`);
  at("right").setAttribute("aria-label", shown ? `${data.cubes[second].kind} cube ${data.cubes[second].name}, ${how}` : "");
  for (const button of at("cubes").children)
    button.setAttribute("aria-current", String(+button.dataset.index === state.cube));
  mark();
  chart();
  scores();
  history.replaceState(null, "", "#" + new URLSearchParams({ cube: state.cube, beside: state.beside, band: state.band,
    colour: +state.colour, log: +state.log, structures: state.structures.join(" "),
    at: state.points.map(p => p.join("-")).join(" ") }));
}

function mark() {
  const point = state.points.at(-1), second = other();
  for (const id of ["left-mark", "right-mark"]) {
    at(id).style.display = point ? "block" : "none";
    if (point) {
      at(id).style.top = `${100 * (point[0] + 0.5) / rows}%`;
      at(id).style.left = `${100 * (point[1] + 0.5) / columns}%`;
    }
  }
  if (!point) {
    at("readout").textContent = "Click into a picture for the spectrum at that point.";
    return;
  }
  const pixel = point[0] * columns + point[1];
  at("readout").textContent = `row ${point[0]}, column ${point[1]}, ${nmOf(state.band)}: ` +
    percent(value(state.cube, state.band, pixel)) + (second >= 0 ? ` left, ${percent(value(second, state.band, pixel))} right` : "");
}

function evenTicks(top) { // multiples of 1, 2 or 5 times a power of ten, four to seven of them, 0 to top
  const rough = top / 6, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(m => m * unit >= rough);
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, k) => k * step);
}
function logTicks(floor, top) { // 1, 2 and 5 times powers of ten, or the powers alone where those would be many
  const powers = [];
  for (let k = Math.floor(Math.log10(floor)); k <= Math.log10(top); k++) powers.push(10 ** k);
  const all = powers.flatMap(p => [p, 2 * p, 5 * p]).filter(v => v >= floor && v <= top);
  return all.length <= 8 ? all : powers.filter(v => v >= floor && v <= top);
}

function chart() {
  const box = { left: 52, right: 628, top: 10, bottom: 262 }, second = other(), svg = at("spectrum");
  const middle = (box.left + box.right) / 2, lines = [], parts = [];
  state.points.forEach((point, i) => {
    const pixel = point[0] * columns + point[1], old = i < state.points.length - 1 ? " old" : "";
    lines.push(["one" + old, spectrum(state.cube, pixel)]);
    if (second >= 0) lines.push(["two" + old, spectrum(second, pixel)]);
  });
  const first = data.wavelengths[0], last = data.wavelengths.at(-1);
  const x = nm => box.left + (box.right - box.left) * (last > first ? (nm - first) / (last - first) : 0.5);
  const every = Math.ceil(bands / 9);
  data.wavelengths.forEach((nm, band) => {
    const named = band % every === 0;
    parts.push(`<line class="grid" x1="${x(nm)}" x2="${x(nm)}" y1="${box.bottom}" y2="${box.bottom + (named ? 6 : 3)}"/>`);
    if (named) parts.push(`<text x="${x(nm)}" y="${box.bottom + 18}" text-anchor="middle">${Math.round(nm)}</text>`);
  });
  parts.push(`<line class="grid" x1="${box.left}" x2="${box.right}" y1="${box.bottom}" y2="${box.bottom}"/>`);
  if (lines.length) {
    const now = x(data.wavelengths[state.band]), all = lines.flatMap(l => l[1]);
    parts.push(`<line class="now" x1="${now}" x2="${now}" y1="${box.top}" y2="${box.bottom}"/>`);
    const top = Math.max(...all, 1e-4) * 1.08, floor = Math.max(Math.min(...all, top / 2), top / 3000);
    const y = v => {
      const t = state.log ? Math.log(Math.max(v, floor) / floor) / Math.log(top / floor) : v / top;
      return box.bottom - (box.bottom - box.top) * t;
    };
    for (const v of state.log ? logTicks(floor, top) : evenTicks(top))
      parts.push(`<line class="grid" x1="${box.left}" x2="${box.right}" y1="${y(v)}" y2="${y(v)}"/>` +
        `<text x="${box.left - 6}" y="${y(v) + 4}" text-anchor="end">${+(100 * v).toPrecision(3)}</text>`);
    for (const [kind, values] of lines) {
      const places = values.map((v, b) => [x(data.wavelengths[b]).toFixed(1), y(v).toFixed(1)]);
      parts.push(`<path class="${kind}" d="M${places.map(p => p.join(",")).join("L")}"/>`);
      for (const [cx, cy] of places) parts.push(`<circle class="${kind} dot" cx="${cx}" cy="${cy}" r="2"/>`);
    }
    parts.push(`<text x="${middle}" y="${box.bottom + 34}" text-anchor="middle">` +
      `reflectance (%) over wavelength (nm)${second >= 0 ? "; solid: left, dashed: right" : ""}</text>`);
  } else {
    parts.push(`<text class="hint" x="${middle}" y="${(box.top + box.bottom) / 2}" text-anchor="middle">` +
      "no point chosen yet: click into a picture</text>" +
      `<text x="${middle}" y="${box.bottom + 34}" text-anchor="middle">wavelength (nm)</text>`);
  }
  svg.innerHTML = parts.join(""); // numbers and fixed words only
}

function scores() {
  at("scores").replaceChildren();
  const cube = data.cubes[state.cube];
  if (!cube.scores.length && !cube.status) return;
  const card = make("div");
  card.append(make("b", "gates: "), make("span", cube.status || "measured", cube.accepted === false ? "fail" : "pass"));
  const table = make("table"), head = make("tr");
  for (const word of ["score", "value", "limit", ""]) head.append(make("th", word));
  table.append(head);
  for (const s of cube.scores) {
    const row = make("tr");
    row.append(make("th", s.label), make("td", s.value), make("td", s.limit),
      make("td", s.ok === null ? "" : s.ok ? "within" : "beyond", s.ok === false ? "fail" : ""));
    table.append(row);
  }
  card.append(table);
  at("scores").append(card);
}

function pick(event, canvas) {
  const place = canvas.getBoundingClientRect();
  const row = Math.floor((event.clientY - place.top) / place.height * rows);
  const column = Math.floor((event.clientX - place.left) / place.width * columns);
  add([row, column], event.shiftKey);
}
function add(point, keep) {
  const fit = (v, end) => Math.min(Math.max(v, 0), end - 1);
  const kept = keep ? state.points.slice(-5) : [];
  state.points = [...kept, [fit(point[0], rows), fit(point[1], columns)]];
  draw();
}

const named = [...new Set(data.cubes.flatMap(c => Object.keys(c.masks)))].filter(n => n in COLOURS);
const toggle = {
  colour: () => { state.colour = !state.colour; },
  structures: () => { state.structures = state.structures.length ? [] : [...named]; },
  log: () => { state.log = !state.log; },
  clear: () => { state.points = []; },
  theme: () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  },
};
const step = { cube: by => { state.cube = (state.cube + by + data.listed) % data.listed; },
  band: by => { state.band = Math.min(Math.max(state.band + by, 0), bands - 1); state.colour = false; } };
const KEYS = { ArrowLeft: () => step.band(-1), ArrowRight: () => step.band(1), ArrowUp: () => step.cube(-1),
  ArrowDown: () => step.cube(1), c: toggle.colour, s: toggle.structures, l: toggle.log, x: toggle.clear, d: toggle.theme };
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches?.("input[type=range], select") && event.key.startsWith("Arrow")) return;
  if (event.shiftKey && event.key in MOVES) {
    const from = state.points.at(-1) ?? [rows >> 1, columns >> 1], by = MOVES[event.key];
    state.points.pop();
    add([from[0] + by[0], from[1] + by[1]], true);
  } else if (event.key in KEYS) {
    KEYS[event.key]();
    draw();
  } else return;
  event.preventDefault();
});
for (const id of ["left", "right"]) at(id).addEventListener("click", event => pick(event, at(id)));
for (const id of ["colour", "structures", "log", "clear", "theme"])
  at(id).addEventListener(id === "clear" || id === "theme" ? "click" : "change", () => { toggle[id](); draw(); });
at("band").addEventListener("input", () => { state.band = +at("band").value; state.colour = false; draw(); });
at("beside").addEventListener("change", () => { state.beside = +at("beside").value; draw(); });

function begin() {
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
  at("band").max = bands - 1;
  at("rgb").textContent = rgb.map(b => Math.round(data.wavelengths[b])).join(" / ") + " nm as red / green / blue";
  at("beside").append(new Option("its partner", -1), ...data.cubes.map((c, i) => new Option(`${c.kind}: ${c.name}`, i)));
  for (const name of named) {
    const label = make("label"), box = make("input"), swatch = make("i");
    Object.assign(box, { type: "checkbox", value: name });
    swatch.style.background = COLOURS[name];
    box.addEventListener("change", () => {
      state.structures = named.filter(n => n === name ? box.checked : state.structures.includes(n));
      draw();
    });
    label.append(box, swatch, name);
    at("legend").append(label);
  }
  at("structures").disabled = !named.length;
  data.cubes.slice(0, data.listed).forEach((cube, index) => {
    const button = make("button"), small = make("canvas"), words = make("span", `${cube.kind}: ${cube.name}`);
    if (cube.status) words.append(make("br"), make("b", cube.status.split(":")[0], cube.accepted === false ? "fail" : "pass"));
    button.type = "button";
    button.dataset.index = index;
    button.append(small, words);
    button.addEventListener("click", () => { state.cube = index; draw(); });
    at("cubes").append(button);
    paint(small, index, true, []);
  });
  const asked = new URLSearchParams(location.hash.slice(1));
  const whole = (name, end) => {
    const n = parseInt(asked.get(name) ?? "", 10);
    return n >= 0 && n < end ? n : null;
  };
  state.cube = whole("cube", data.listed) ?? 0;
  state.beside = whole("beside", data.cubes.length) ?? -1;
  state.band = whole("band", bands) ?? state.band;
  state.colour = asked.get("colour") !== "0";
  state.log = asked.get("log") === "1";
  state.structures = (asked.get("structures") ?? "").split(" ").filter(n => named.includes(n));
  state.points = (asked.get("at") ?? "").split(" ").map(p => p.split("-").map(Number))
    .filter(p => p.length === 2 && p[0] >= 0 && p[0] < rows && p[1] >= 0 && p[1] < columns);
  draw();
}
begin();
