// Evaluates the network of a run from its weights. An image is a Float32Array of pixels in [0, 1], row by row;
// activations are laid out as in JAX: rows, columns, channels.

const ACTIVATIONS = {
  none: (v) => v,
  relu: (v) => Math.max(v, 0),
  swish: (v) => v / (1 + Math.exp(-v)),
};

const REDUCTIONS = {
  max: (window) => Math.max(...window),
  average: (window) => window.reduce((a, b) => a + b) / window.length,
  median: (window) => {
    const sorted = [...window].sort((a, b) => a - b);
    const n = sorted.length;
    return (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2;
  },
  strided: (window) => window[0],
};

const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** Decode base64. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Decode the weights and divide them among the layers. */
function readNetwork(record) {
  const weights = new Float32Array(bytesOf(record.weights).buffer);
  let at = 0;
  const take = (size) => weights.subarray(at, (at += size));
  const layers = record.layers.map((layer) =>
    layer.kernel ? { ...layer, weights: take(count(layer.kernel)), bias: take(layer.kernel.at(-1)) } : layer,
  );
  return { ...record, layers };
}

function convolution(layer, { shape, values }) {
  const [height, width, inputs] = shape;
  const [rows, columns, , outputs] = layer.kernel;
  const same = layer.padding === "SAME";
  const top = same ? (rows - 1) >> 1 : 0;
  const left = same ? (columns - 1) >> 1 : 0;
  const high = same ? height : height - rows + 1;
  const wide = same ? width : width - columns + 1;
  const activation = ACTIVATIONS[layer.activation];
  const out = new Float32Array(high * wide * outputs);
  const sums = new Float64Array(outputs);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      sums.set(layer.bias);
      for (let i = 0; i < rows; i++) {
        const row = y + i - top;
        if (row < 0 || row >= height) continue;
        for (let j = 0; j < columns; j++) {
          const column = x + j - left;
          if (column < 0 || column >= width) continue;
          for (let c = 0; c < inputs; c++) {
            const value = values[(row * width + column) * inputs + c];
            const from = ((i * columns + j) * inputs + c) * outputs;
            for (let k = 0; k < outputs; k++) sums[k] += value * layer.weights[from + k];
          }
        }
      }
      for (let k = 0; k < outputs; k++) out[(y * wide + x) * outputs + k] = activation(sums[k]);
    }
  }
  return { shape: [high, wide, outputs], values: out };
}

function pooling({ window: size, reduce }, { shape, values }) {
  const [height, width, channels] = shape;
  const [high, wide] = [Math.floor(height / size), Math.floor(width / size)];
  const inWindow = Array.from({ length: size * size }, (_, i) => Math.floor(i / size) * width + (i % size));
  const out = Float32Array.from({ length: high * wide * channels }, (_, i) => {
    const [y, x, c] = [Math.floor(i / channels / wide), Math.floor(i / channels) % wide, i % channels];
    const corner = y * size * width + x * size;
    return REDUCTIONS[reduce](inWindow.map((at) => values[(corner + at) * channels + c]));
  });
  return { shape: [high, wide, channels], values: out };
}

function dense(layer, { values }) {
  const [, outputs] = layer.kernel;
  const sums = Float64Array.from(layer.bias);
  for (let i = 0; i < values.length; i++) {
    if (values[i] === 0) continue;
    for (let k = 0; k < outputs; k++) sums[k] += values[i] * layer.weights[i * outputs + k];
  }
  const activation = ACTIVATIONS[layer.activation];
  return { shape: [outputs], values: Float32Array.from(sums, activation) };
}

const LAYERS = {
  scale: (layer, { shape, values }) => ({ shape, values: values.map((v) => v * layer.factor) }),
  conv: convolution,
  pool: pooling,
  dropout: (_, x) => x, // inverted dropout does nothing in evaluation
  flatten: (_, { values }) => ({ shape: [values.length], values }),
  dense,
};

/** The output of every layer, in order. */
function activations(layers, x) {
  return layers.map((layer) => (x = LAYERS[layer.kind](layer, x)));
}

/** The logits of an image, a Float32Array. */
function logits(network, image) {
  return activations(network.layers, { shape: network.input, values: image }).at(-1).values;
}

function softmax(values) {
  const top = Math.max(...values);
  const powers = Array.from(values, (v) => Math.exp(v - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((v) => v / sum);
}
