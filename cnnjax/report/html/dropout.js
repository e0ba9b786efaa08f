// Inverted dropout. Each value has one uniform u and is dropped if u < rate. Every rate uses the same u, so a
// dropped value stays dropped as the rate rises.

/** n uniform random numbers in [0, 1), a pure function of the seed (mulberry32). */
function uniforms(seed, n) {
  let state = seed >>> 0;
  return Float64Array.from({ length: n }, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  });
}

/** Apply inverted dropout: 0 where u < rate, else value / (1 - rate). */
function invertedDropout(values, u, rate) {
  return values.map((value, i) => (u[i] < rate ? 0 : value / (1 - rate)));
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/** Standard deviation, over masks, of the mean after inverted dropout. */
function deviationOfMean(values, rate) {
  const squares = values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt((squares * rate) / (1 - rate)) / values.length;
}
