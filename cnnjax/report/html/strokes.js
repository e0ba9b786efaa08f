// Turns strokes into an image as MNIST does: the ink is scaled to fit 20 x 20 pixels, keeping its aspect ratio,
// and its centre of mass is moved to the middle of 28 x 28. A stroke is a list of points [x, y].

const FIELD = 28;
const FIT = 20;
// Radius of the pen and width of its soft edge, in pixels, chosen to match the amount and softness of MNIST's ink.
const PEN = 1.35;
const EDGE = 1.1;
// MNIST's centre of mass is, on average, in the middle of pixel (14, 14).
const MIDDLE = 14.5;
// A drawing smaller than this fraction of the canvas is not enlarged further, so that a dot stays a dot.
const SMALLEST = 0.12;

/** Render strokes in the unit square as 28 x 28 values in [0, 1]; null without strokes. */
function digitise(strokes) {
  const points = strokes.flat();
  if (points.length === 0) return null;
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (FIT - 2 * PEN) / Math.max(right - left, bottom - top, SMALLEST);
  const place = (dx, dy) =>
    strokes.map((stroke) =>
      stroke.map(([x, y]) => [
        (x - (left + right) / 2) * scale + FIELD / 2 + dx,
        (y - (top + bottom) / 2) * scale + FIELD / 2 + dy,
      ]),
    );
  const [x, y] = centreOfMass(ink(place(0, 0)));
  return ink(place(MIDDLE - x, MIDDLE - y));
}

/** Render strokes in pixel coordinates: 1 within the pen's radius, fading over its edge. */
function ink(strokes) {
  const image = new Float32Array(FIELD * FIELD);
  const reach = PEN + EDGE / 2;
  for (const stroke of strokes) {
    stroke.forEach(([x, y], i) => {
      const [fromX, fromY] = stroke[Math.max(i - 1, 0)];
      const first = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - reach));
      const last = (a, b) => Math.min(FIELD - 1, Math.ceil(Math.max(a, b) + reach));
      for (let row = first(y, fromY); row <= last(y, fromY); row++) {
        for (let column = first(x, fromX); column <= last(x, fromX); column++) {
          const far = distance(column + 0.5, row + 0.5, fromX, fromY, x, y);
          const value = Math.min(1, Math.max(0, (reach - far) / EDGE));
          const at = row * FIELD + column;
          image[at] = Math.max(image[at], value);
        }
      }
    });
  }
  return image;
}

/** Distance of the point (x, y) from the segment from a to b. */
function distance(x, y, ax, ay, bx, by) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length));
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

function centreOfMass(image) {
  let [mass, x, y] = [0, 0, 0];
  image.forEach((value, i) => {
    mass += value;
    x += value * ((i % FIELD) + 0.5);
    y += value * (Math.floor(i / FIELD) + 0.5);
  });
  return [x / mass, y / mass];
}
