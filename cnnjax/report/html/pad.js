// The drawing pad: strokes by mouse, touch or keyboard, and the prediction for them.

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

function replaceStrokes(strokes) {
  state.strokes = strokes;
  state.pen.down = false;
  redraw();
}

const undo = () => replaceStrokes(state.strokes.slice(0, -1));
const clear = () => replaceStrokes([]);
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
/** Announce a text to screen readers, once nothing has changed for half a second. */
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
  const verdict = image ? `It sees ${network.classes[best]}, ${percent(shares[best])}.` : "Nothing is drawn.";
  $("seen").setAttribute("aria-label", `What the network sees. ${verdict}`);
  $("pen").textContent = state.pen.down ? "pen down" : "";
  if (image) say(verdict);
  choose(image ? "drawing" : state.example === "drawing" ? 0 : state.example);
}

