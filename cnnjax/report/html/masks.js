// Dropout by hand: input, mask and output at one rate, and the mean at every rate.

/** Paint the channels in two rows, one pixel apart. */
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

function showDropout({ at, shape, values }) {
  const { rate } = state;
  $("dropout").hidden = at < 0;
  if (at < 0) return;
  const u = uniforms(state.seed, values.length);
  const after = invertedDropout(values, u, rate);
  const mask = Float32Array.from(u, (v) => (v < rate ? 0 : 1));
  const kept = mask.reduce((a, b) => a + b, 0);
  mosaic($("before"), shape, values, largest(values));
  mosaic($("mask"), shape, mask, 1);
  mosaic($("after"), shape, after, largest(values));
  const [whole, left] = [mean(values), mean(after)];
  $("rate-value").textContent = rate.toFixed(2);
  $("before-value").textContent = `${values.length.toLocaleString("en")} values, mean ${whole.toFixed(3)}`;
  $("mask-value").textContent = `${kept.toLocaleString("en")} kept, ${percent(kept / values.length)}`;
  $("after-value").textContent = `times ${(1 / (1 - rate)).toFixed(2)}, mean ${left.toFixed(3)}`;
  $("rate").setAttribute("aria-valuetext", `${rate.toFixed(2)}: ${kept} values kept, mean ${left.toFixed(3)}`);
  showMeans(values, u);
  showAnswers(at, values);
}

function showMeans(values, u) {
  const [width, height, left, bottom] = [360, 210, 46, 40];
  const whole = mean(values);
  const top = Math.max(2 * whole, 1e-9);
  const x = (rate) => left + ((width - left - 10) * rate) / 0.95;
  const y = (value) => (height - bottom) * (1 - clamp(value / top, 0, 1));
  const path = (points, attributes) =>
    element("svg:path", { d: `M${points.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L")}`, ...attributes });
  const text = (content, x, y, anchor) => element("svg:text", { x, y, "text-anchor": anchor }, content);
  const kept = (rate) => values.reduce((sum, value, i) => sum + (u[i] < rate ? 0 : value), 0) / values.length;
  const spread = (rate) => 1.96 * deviationOfMean(values, rate);
  const drops = RATES.map((rate) => [rate, kept(rate)]);
  const inverted = drops.map(([rate, value]) => [rate, value / (1 - rate)]);
  const band = [...RATES.map((r) => [r, whole + spread(r)]), ...RATES.map((r) => [r, whole - spread(r)]).reverse()];
  const now = kept(state.rate);
  const ring = (value, style) =>
    element(
      "svg:circle",
      { cx: x(state.rate), cy: y(value), r: 5, class: `line ${style} dot` },
      element("svg:title", {}, `mean ${value.toFixed(3)} at rate ${state.rate.toFixed(2)}`),
    );
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
  const summary = `At rate ${state.rate.toFixed(2)}: ${(now / (1 - state.rate)).toFixed(3)} divided, ${now.toFixed(3)} not`;
  svg.setAttribute("aria-label", summary);
  $("means").replaceChildren(svg);
}

/** Show the prediction under this mask, and how many of MASKS masks leave it unchanged. */
const showAnswers = delayed(120, (at, values) => {
  const { network, rate, seed } = state;
  const rest = network.layers.slice(at + 1);
  const after = (values) => softmax(activations(rest, { shape: [values.length], values }).at(-1).values);
  const under = (number) => after(invertedDropout(values, uniforms(number, values.length), rate));
  const whole = best(after(values));
  const mine = under(seed);
  const same = Array.from({ length: MASKS }, (_, i) => best(under(seed + i)) === whole).filter(Boolean).length;
  const name = (i) => network.classes[i];
  $("under-masks").textContent =
    `Without dropout the network predicts ${name(whole)}; with this mask, ${name(best(mine))} ` +
    `(${percent(Math.max(...mine))}). The prediction is the same for ${same} of ${MASKS} masks at this rate.`;
});

$("rate").addEventListener("input", () => {
  state.rate = Number($("rate").value);
  showInside();
});
$("remask").addEventListener("click", () => {
  state.seed += MASKS;
  showInside();
});
