// The page: what is drawn or chosen goes through the network, and everything that shows it follows.

const $ = (id) => document.getElementById(id);
const report = JSON.parse($("report-data").textContent);
const MASKS = 100;
const RATES = Array.from({ length: 96 }, (_, i) => i / 100);
const state = { network: null, strokes: [], pen: { x: 0.5, y: 0.5, down: false }, example: 0, rate: 0, seed: 1 };

function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Show values row by row: the larger, the more ink; negative ones in the cold colour. */
function paint(canvas, values, width, height, most) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const [ink, cold] = ["--ink", "--cold"].map((name) =>
    colour(name).match(/\w\w/g).map((part) => parseInt(part, 16)),
  );
  values.forEach((value, i) => {
    image.data.set(value < 0 ? cold : ink, 4 * i);
    image.data[4 * i + 3] = Math.round(255 * Math.min(1, Math.abs(value) / (most || 1)));
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const channel = ({ shape, values }, c) =>
  Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => values[i * shape[2] + c]);
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// --- the drawing ---

const pad = $("pad");

function drawPad() {
  const { width } = pad;
  const context = pad.getContext("2d");
  context.clearRect(0, 0, width, width);
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: 0.085 * width });
  context.strokeStyle = colour("--ink");
  for (const stroke of state.strokes) {
    context.beginPath();
    stroke.forEach(([x, y]) => context.lineTo(x * width, y * width));
    if (stroke.length === 1) context.lineTo(stroke[0][0] * width, stroke[0][1] * width + 0.1);
    context.stroke();
  }
  if (pad.matches(":focus-visible")) {
    const { x, y, down } = state.pen;
    context.beginPath();
    context.arc(x * width, y * width, 0.05 * width, 0, 2 * Math.PI);
    context.lineWidth = 4;
    context.strokeStyle = colour("--c0");
    context.fillStyle = colour("--c0");
    down ? context.fill() : context.stroke();
  }
  $("pad-hint").hidden = state.strokes.length > 0;
  $("undo").disabled = $("clear").disabled = state.strokes.length === 0;
}

function placeOf(event) {
  const box = pad.getBoundingClientRect();
  const inside = (v) => Math.min(1, Math.max(0, v));
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

pad.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  pad.setPointerCapture(event.pointerId);
  state.pen.down = false;
  state.strokes.push([placeOf(event)]);
  redraw();
});
pad.addEventListener("pointermove", (event) => {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) state.strokes.at(-1).push(placeOf(each));
  redraw();
});

const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
const held = new Set();

pad.addEventListener("keydown", (event) => {
  const { pen, strokes } = state;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in ARROWS) {
    held.add(event.key);
    for (const key of held) {
      pen.x = Math.min(0.95, Math.max(0.05, pen.x + ARROWS[key][0] / 28));
      pen.y = Math.min(0.95, Math.max(0.05, pen.y + ARROWS[key][1] / 28));
    }
    if (pen.down) strokes.at(-1).push([pen.x, pen.y]);
  } else if (event.key === " " && !event.repeat) {
    pen.down = !pen.down;
    if (pen.down) strokes.push([[pen.x, pen.y]]);
    say(pen.down ? "The pen is down." : "The pen is up.");
  } else if (event.key === "Backspace") undo();
  else if (event.key === "Delete") clear();
  else return;
  event.preventDefault();
  redraw();
});
pad.addEventListener("keyup", (event) => held.delete(event.key));
pad.addEventListener("focus", drawPad);
pad.addEventListener("blur", () => {
  held.clear();
  state.pen.down = false;
  drawPad();
});

function undo() {
  state.strokes.pop();
  state.pen.down = false;
  redraw();
}

function clear() {
  state.strokes = [];
  state.pen.down = false;
  redraw();
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);

let frame = 0;
function redraw() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    drawPad();
    answer();
  });
}

let speaking = 0;
/** Tell screen readers, once nothing has changed for a while. */
function say(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("spoken").textContent = text), 500);
}

function answer() {
  const { network } = state;
  const image = digitise(state.strokes);
  paint($("seen"), image ?? new Float32Array(FIELD * FIELD), FIELD, FIELD, 1);
  const shares = image ? softmax(logits(network, image)) : network.classes.map(() => 0);
  const best = shares.indexOf(Math.max(...shares));
  network.classes.forEach((_, i) => {
    const row = $("bars").children[i];
    row.classList.toggle("best", image !== null && i === best);
    row.querySelector(".fill").style.width = `${100 * shares[i]}%`;
    row.lastChild.textContent = image ? percent(shares[i]) : "–";
  });
  $("verdict").replaceChildren(
    ...(image
      ? [element("strong", {}, network.classes[best]), element("span", {}, percent(shares[best]))]
      : [element("span", {}, "The answer appears here.")]),
  );
  const told = image ? `It sees ${network.classes[best]}, ${percent(shares[best])}.` : "Nothing is drawn.";
  $("seen").setAttribute("aria-label", `What the network sees. ${told}`);
  $("pen").textContent = state.pen.down ? "pen down" : "";
  if (image) say(told);
  choose(image ? "drawing" : state.example === "drawing" ? 0 : state.example);
}

// --- an example on its way through the layers ---

/** The image that is looked at: one of the test images, or the drawing. */
function chosenImage() {
  if (state.example === "drawing") return digitise(state.strokes);
  return state.network.examples[state.example].image;
}

function choose(example) {
  state.example = example;
  const drawing = digitise(state.strokes);
  const own = $("example-drawing");
  own.disabled = drawing === null;
  own.parentElement.classList.toggle("empty", drawing === null);
  paint(own.nextSibling, drawing ?? new Float32Array(FIELD * FIELD), FIELD, FIELD, 1);
  $(`example-${example}`).checked = true;
  showLayers();
  showDropout();
}

function showExamples() {
  const { network } = state;
  const choice = (id, name, image) => {
    const radio = element("input", { type: "radio", name: "example", id: `example-${id}`, "aria-label": name });
    const canvas = element("canvas", { "aria-hidden": "true" });
    paint(canvas, image, FIELD, FIELD, 1);
    radio.addEventListener("change", () => choose(id));
    return element("label", {}, radio, canvas);
  };
  $("examples").replaceChildren(
    ...network.examples.map(({ label, image }, i) => choice(i, `test image: ${network.classes[label]}`, image)),
    choice("drawing", "your drawing", new Float32Array(FIELD * FIELD)),
  );
}

/** Where dropout acts: its place among the layers, and what comes in, as rows, columns and channels. */
function dropoutSite(network, image) {
  const steps = activations(network.layers, { shape: network.input, values: image });
  const at = network.layers.findLastIndex((layer) => layer.kind === "dropout");
  const { shape } = steps.findLast((step, i) => i < at && step.shape.length === 3) ?? {};
  return { steps, at, shape, values: steps[at]?.values };
}

function showLayers() {
  const { network } = state;
  const site = dropoutSite(network, chosenImage());
  const blocks = [];
  network.layers.forEach((layer, i) => {
    if (layer.kind !== "conv") return;
    const after = network.layers.slice(i + 1);
    const next = after.findIndex(({ kind }) => kind === "conv" || kind === "dense");
    const shown = [{ told: `convolution, ${layer.activation}`, ...site.steps[i] }];
    after.slice(0, next).forEach(({ kind, reduce }, j) => {
      const step = site.steps[i + 1 + j];
      if (kind === "pool") shown.push({ told: `${reduce} pooling`, ...step });
      if (kind === "dropout") {
        const u = uniforms(state.seed, step.values.length);
        const values = invertedDropout(step.values, u, state.rate);
        shown.push({ told: `dropout, rate ${state.rate.toFixed(2)}`, shape: shown.at(-1).shape, values });
      }
    });
    blocks.push(block(layer, shown, blocks.length + 1));
  });
  $("layers").replaceChildren(...blocks);
}

function block(layer, shown, number) {
  const [rows, columns, inputs, outputs] = layer.kernel;
  const strongest = largest(layer.weights);
  const map = (values, width, height, most, told) => {
    const canvas = element("canvas", { role: "img", "aria-label": told });
    paint(canvas, values, width, height, most);
    return canvas;
  };
  const strips = Array.from({ length: outputs }, (_, k) => {
    const kernels = Array.from({ length: inputs }, (_, c) => {
      const taps = Float32Array.from({ length: rows * columns }, (_, i) => layer.weights[(i * inputs + c) * outputs + k]);
      return map(taps, columns, rows, strongest, `kernel ${k + 1}${inputs > 1 ? `, of channel ${c + 1}` : ""}`);
    });
    const maps = shown.map((step) => {
      const [high, wide] = step.shape;
      return map(channel(step, k), wide, high, largest(step.values), `${step.told}, channel ${k + 1}`);
    });
    return element("div", { class: "channel" }, element("div", { class: "kernels" }, ...kernels), ...maps);
  });
  const steps = [`${outputs} kernels of ${rows} × ${columns}${inputs > 1 ? ` × ${inputs}` : ""}`];
  steps.push(...shown.map(({ told, shape }) => `${told}: ${shape.join(" × ")}`));
  const channels = element("div", { class: "channels" }, ...strips);
  channels.style.setProperty("--across", Math.min(outputs, 10));
  channels.style.setProperty("--across-narrow", outputs > 6 ? 5 : 3);
  return element(
    "figure",
    { class: "block" },
    element("figcaption", {}, element("h3", {}, `Block ${number}`), element("ol", {}, ...steps.map((s) => element("li", {}, s)))),
    channels,
  );
}

// --- dropout by hand ---

/** Channels beside and below one another, with a line of nothing between them. */
function mosaic(canvas, shape, values, most) {
  const [high, wide, channels] = shape;
  const across = Math.ceil(channels / 2);
  const [width, height] = [across * (wide + 1) - 1, Math.ceil(channels / across) * (high + 1) - 1];
  const image = new Float32Array(width * height);
  values.forEach((value, i) => {
    const [c, x, y] = [i % channels, Math.floor(i / channels) % wide, Math.floor(i / channels / wide)];
    image[(Math.floor(c / across) * (high + 1) + y) * width + (c % across) * (wide + 1) + x] = value;
  });
  paint(canvas, image, width, height, most);
}

let counting = 0;
function showDropout() {
  const { network, rate } = state;
  const { at, shape, values } = dropoutSite(network, chosenImage());
  if (at < 0) return;
  const u = uniforms(state.seed, values.length);
  const after = invertedDropout(values, u, rate);
  const mask = Float32Array.from(u, (v) => (v < rate ? 0 : 1));
  const kept = mask.reduce((a, b) => a + b, 0);
  mosaic($("before"), shape, values, largest(values));
  mosaic($("mask"), shape, mask, 1);
  mosaic($("after"), shape, after, largest(values));
  const [whole, left] = [mean(values), mean(after)];
  $("rate-told").textContent = rate.toFixed(2);
  $("before-told").textContent = `${values.length.toLocaleString("en")} values, mean ${whole.toFixed(3)}`;
  $("mask-told").textContent = `${kept.toLocaleString("en")} kept, ${percent(kept / values.length)}`;
  $("after-told").textContent = `times ${(1 / (1 - rate)).toFixed(2)}, mean ${left.toFixed(3)}`;
  $("rate").setAttribute("aria-valuetext", `${rate.toFixed(2)}: ${kept} values kept, mean ${left.toFixed(3)}`);
  showMeans(values, u);
  clearTimeout(counting);
  counting = setTimeout(() => showAnswers(at, values), 120);
}

function showMeans(values, u) {
  const [width, height, left, bottom] = [360, 210, 46, 40];
  const whole = mean(values);
  const top = Math.max(2 * whole, 1e-9);
  const x = (rate) => left + ((width - left - 10) * rate) / 0.95;
  const y = (value) => (height - bottom) * (1 - Math.min(1, Math.max(0, value / top)));
  const path = (points, attributes) =>
    element("svg:path", { d: `M${points.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L")}`, ...attributes });
  const text = (told, at, line, anchor) => element("svg:text", { x: at, y: line, "text-anchor": anchor }, told);
  const kept = (rate) => values.reduce((sum, value, i) => sum + (u[i] < rate ? 0 : value), 0) / values.length;
  const spread = (rate) => 1.96 * deviationOfMean(values, rate);
  const drops = RATES.map((rate) => [rate, kept(rate)]);
  const inverted = drops.map(([rate, value]) => [rate, value / (1 - rate)]);
  const band = [...RATES.map((r) => [r, whole + spread(r)]), ...RATES.map((r) => [r, whole - spread(r)]).reverse()];
  const now = kept(state.rate);
  const ring = (value, style) =>
    element("svg:circle", { cx: x(state.rate), cy: y(value), r: 5, class: `line ${style} dot` });
  const svg = element(
    "svg:svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img" },
    ...[0, 0.25, 0.5, 0.75].map((r) => text(String(r), x(r), height - bottom + 17, "middle")),
    text("dropout rate", width - 10, height - 5, "end"),
    ...[0, whole].map((v) => text(v.toFixed(v ? 3 : 0), left - 7, y(v) + 4, "end")),
    element("svg:path", { d: `M${left} ${y(whole)}H${width - 10}`, class: "grid" }),
    element("svg:path", { d: `M${left} ${y(0)}H${width - 10}`, class: "axis" }),
    path(band, { class: "band c0" }),
    path(drops, { class: "line c1" }),
    path(inverted, { class: "line c0" }),
    ring(now, "c1"),
    ring(now / (1 - state.rate), "c0"),
  );
  const told = `At rate ${state.rate.toFixed(2)}: ${(now / (1 - state.rate)).toFixed(3)} divided, ${now.toFixed(3)} not`;
  svg.setAttribute("aria-label", told);
  $("means").replaceChildren(svg);
}

/** What the layers after dropout answer under this mask, and under many. */
function showAnswers(at, values) {
  const { network, rate, seed } = state;
  const rest = network.layers.slice(at + 1);
  const under = (number) => {
    const masked = invertedDropout(values, uniforms(number, values.length), rate);
    const said = rest.length ? activations(rest, { shape: [values.length], values: masked }).at(-1).values : masked;
    return softmax(said);
  };
  const best = (shares) => shares.indexOf(Math.max(...shares));
  const whole = best(logitsAfter(rest, values));
  const mine = under(seed);
  const same = Array.from({ length: MASKS }, (_, i) => best(under(seed + i)) === whole).filter(Boolean).length;
  const name = (i) => network.classes[i];
  $("under-masks").textContent =
    `Without dropout the network answers ${name(whole)}. Under this mask it answers ${name(best(mine))}, with ` +
    `${percent(Math.max(...mine))}; of ${MASKS} masks at this rate, ${same} leave the answer as it is.`;
}

const logitsAfter = (layers, values) => activations(layers, { shape: [values.length], values }).at(-1).values;

$("rate").addEventListener("input", () => {
  state.rate = Number($("rate").value);
  showLayers();
  showDropout();
});
$("remask").addEventListener("click", () => {
  state.seed += MASKS;
  showLayers();
  showDropout();
});

// --- the whole ---

function useNetwork(number) {
  const network = readNetwork(report.networks[number]);
  network.examples = network.examples.map(({ label, pixels }) => ({
    label,
    image: Float32Array.from(bytesOf(pixels), (v) => v / 255),
  }));
  state.network = network;
  state.rate = Math.min(0.95, network.rate || 0.5);
  $("rate").value = state.rate;
  $("bars").replaceChildren(
    ...network.classes.map((name) =>
      element(
        "li",
        {},
        element("span", { class: "name" }, name),
        element("span", { class: "bar" }, element("span", { class: "fill" })),
        element("span", { class: "share" }, "–"),
      ),
    ),
  );
  const far = network.examples.map(({ image }, i) =>
    largest(logits(network, image).map((v, k) => v - network.logits[i][k])),
  );
  $("check").textContent =
    `Checked when this page opened: on ${far.length} test images the logits computed here and those that JAX ` +
    `computed differ by at most ${Math.max(...far).toExponential(1)}.`;
  showExamples();
  drawPad();
  answer();
}

$("network").addEventListener("change", () => useNetwork(Number($("network").value)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  showExamples();
  redraw();
});
useNetwork(0);
