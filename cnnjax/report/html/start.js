// Start: load a network, check its logits against JAX's, and show it.

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
    `Checked when this page opened: on ${far.length} test images, the logits computed here and those of JAX ` +
    `differ by at most ${Math.max(...far).toExponential(1)}.`;
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
