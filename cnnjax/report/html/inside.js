// Inside the network: kernels, and the outputs of convolution, pooling and dropout for one image.

/** The chosen image: an example, or the drawing. */
const chosenImage = () =>
  state.example === "drawing" ? digitise(state.strokes) : state.network.examples[state.example].image;

function choose(example) {
  state.example = example;
  const drawing = digitise(state.strokes);
  const own = $("example-drawing");
  own.disabled = drawing === null;
  own.parentElement.classList.toggle("empty", drawing === null);
  paintDrawing(own.nextSibling, drawing);
  $(`example-${example}`).checked = true;
  showInside();
}

function showExamples() {
  const { network } = state;
  const choice = (id, name, image) => {
    const radio = element("input", { type: "radio", name: "example", id: `example-${id}`, "aria-label": name });
    radio.addEventListener("change", () => choose(id));
    return element("label", {}, radio, paintDrawing(element("canvas", { "aria-hidden": "true" }), image));
  };
  $("examples").replaceChildren(
    ...network.examples.map(({ label, image }, i) => choice(i, `test image: ${network.classes[label]}`, image)),
    choice("drawing", "your drawing", null),
  );
}

/** All activations, the index of the last dropout layer, and its input with the shape before flattening. */
function dropoutSite(network, image) {
  const steps = activations(network.layers, { shape: network.input, values: image });
  const at = network.layers.findLastIndex((layer) => layer.kind === "dropout");
  const { shape } = steps.findLast((step, i) => i < at && step.shape.length === 3) ?? {};
  return { steps, at, shape, values: steps[at]?.values };
}

/** Show the layers, and dropout by hand, for the chosen image, rate and mask. */
function showInside() {
  const site = dropoutSite(state.network, chosenImage());
  showLayers(state.network, site.steps);
  showDropout(site);
}

function showLayers(network, steps) {
  const blocks = [];
  network.layers.forEach((layer, i) => {
    if (layer.kind !== "conv") return;
    const after = network.layers.slice(i + 1);
    const next = after.findIndex(({ kind }) => kind === "conv" || kind === "dense");
    const shown = [{ label: `convolution, ${layer.activation}`, ...steps[i] }];
    after.slice(0, next).forEach(({ kind, reduce }, j) => {
      const step = steps[i + 1 + j];
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

const channel = ({ shape, values }, c) =>
  Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => values[i * shape[2] + c]);

function block(layer, shown, number) {
  const [rows, columns, inputs, outputs] = layer.kernel;
  const strongest = largest(layer.weights);
  const map = (values, width, height, most, label) =>
    paint(element("canvas", { role: "img", "aria-label": label }), values, width, height, most);
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

