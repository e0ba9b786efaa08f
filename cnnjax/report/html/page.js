// State and helpers that all scripts of the page share.

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

/** Paint values on a canvas, row by row: opacity is the magnitude relative to `most`, colour is the sign. */
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

