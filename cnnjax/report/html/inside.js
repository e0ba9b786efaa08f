// Inside the network: kernels, and the outputs of convolution, pooling and dropout for one image.

/** The chosen image: an example, or the drawing. */
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

/** All activations, the index of the last dropout layer, and its input with the shape before flattening. */
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
    const shown = [{ label: `convolution, ${layer.activation}`, ...site.steps[i] }];
    after.slice(0, next).forEach(({ kind, reduce }, j) => {
      const step = site.steps[i + 1 + j];
      if (kind === "pool") shown.push({ label: `${reduce} pooling`, ...step });
      if (kind === "dropout") {
        const u = uniforms(state.seed, step.values.length);
        const values = invertedDropout(step.values, u, state.rate);
        shown.push({ label: `dropout, rate ${state.rate.toFixed(2)}`, shape: shown.at(-1).shape, values });
      }
    });
    blocks.push(block(layer, shown, blocks.length + 1));
  });
  $("layers").replaceChildren(...blocks);
}

function block(layer, shown, number) {
  const [rows, columns, inputs, outputs] = layer.kernel;
  const strongest = largest(layer.weights);
  const map = (values, width, height, most, label) => {
    const canvas = element("canvas", { role: "img", "aria-label": label });
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
      return map(channel(step, k), wide, high, largest(step.values), `${step.label}, channel ${k + 1}`);
    });
    return element("div", { class: "channel" }, element("div", { class: "kernels" }, ...kernels), ...maps);
  });
  const steps = [`${outputs} kernels of ${rows} × ${columns}${inputs > 1 ? ` × ${inputs}` : ""}`];
  steps.push(...shown.map(({ label, shape }) => `${label}: ${shape.join(" × ")}`));
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

