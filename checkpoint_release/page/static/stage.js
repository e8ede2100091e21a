// Drawing a stick figure on the ground, with its true motion pale behind it.

import { colour, drawingOn } from "./dom.js";
import { GROUND, SEGMENTS } from "./motions.js";

const VIEW = { bottom: -1.05, top: 1.35 }; // metres
const HALF_WIDTH = 1.55; // metres to either side of the figure
const HALF_WIDTH_OF_TWO = 2.4;
const TICK = 0.5; // metres between the marks on the ground
const GROUND_REACH = 3; // metres to either side of 0, of the model's ground
const HEAD_RADIUS = 0.1;
const SIDES = "body body body left left right right left left right right body".split(" ");

// truth, figure, partner: 48 numbers each, or null; ground: heights that the model gives
// for x from -3 to 3, null where it gives none.
export function drawStage(canvas, { truth, figure, partner, ground = null }) {
  const width = canvas.clientWidth;
  if (!width) return;
  const pelvis = pelvisOf(truth);
  const middle = partner ? (pelvis + pelvisOf(partner)) / 2 : pelvis;
  const half = partner ? HALF_WIDTH_OF_TWO : HALF_WIDTH;
  const scale = width / (2 * half);
  const height = Math.round((VIEW.top - VIEW.bottom) * scale);
  const context = drawingOn(canvas, width, height);
  const view = {
    x: (metres) => (metres - middle + half) * scale,
    y: (metres) => (VIEW.top - metres) * scale,
    scale,
    from: middle - half,
    to: middle + half,
  };
  drawGround(context, view, ground ?? [GROUND, GROUND]);
  const pale = { body: colour("line"), left: colour("line"), right: colour("line") };
  if (partner) drawFigure(context, view, partner, pale);
  drawFigure(context, view, truth, pale);
  if (figure) {
    const own = { body: colour("ink"), left: colour("accent"), right: colour("second") };
    drawFigure(context, view, figure, own);
    return;
  }
  context.fillStyle = colour("muted");
  context.font = "600 14px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText("this frame is missing", width / 2, 22);
}

// The middle of the hips along x, which the view follows.
function pelvisOf(figure) {
  const hips = 4 * (SEGMENTS - 1);
  return (figure[hips] + figure[hips + 2]) / 2;
}

function drawGround(context, { x, y, from, to }, levels) {
  context.strokeStyle = colour("field");
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x(Math.min(from, -GROUND_REACH)), y(levels[0]));
  levels.forEach((level, i) => {
    const place = -GROUND_REACH + (2 * GROUND_REACH * i) / (levels.length - 1);
    context.lineTo(x(place), y(level));
  });
  context.lineTo(x(Math.max(to, GROUND_REACH)), y(levels.at(-1)));
  context.stroke();
  for (let mark = Math.ceil(from / TICK); mark * TICK <= to; mark++) {
    context.beginPath();
    context.moveTo(x(mark * TICK), y(VIEW.bottom + 0.12));
    context.lineTo(x(mark * TICK), y(VIEW.bottom + 0.06));
    context.stroke();
  }
}

// The head is a circle at its segment's end; limbs of the left have another colour.
function drawFigure(context, { x, y, scale }, figure, colours) {
  context.lineCap = "round";
  context.lineWidth = Math.max(0.035 * scale, 2);
  SIDES.forEach((side, segment) => {
    const [x1, y1, x2, y2] = figure.slice(4 * segment, 4 * segment + 4);
    context.strokeStyle = context.fillStyle = colours[side];
    context.beginPath();
    context.moveTo(x(x1), y(y1));
    context.lineTo(x(x2), y(y2));
    context.stroke();
    if (segment > 0) return;
    context.beginPath();
    context.arc(x(x2), y(y2), HEAD_RADIUS * scale, 0, 2 * Math.PI);
    context.fill();
  });
}
