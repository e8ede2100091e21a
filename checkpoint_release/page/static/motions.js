// Stick-figure motion from formulas, of the kind that the demo was trained on: joint
// angles are periodic functions of a phase, and the feet decide how high the pelvis is.
// Lengths are in metres for a figure of 1.6 m, x to the right, y up.

export const FRAMES_PER_SECOND = 25;
export const SEGMENTS = 12;
export const GROUND = -0.85; // its height
const { sin, cos, max, PI } = Math;

const push = (phase) => (1 - cos(phase)) / 2; // rises from 0 to 1 and falls again

function stride(phase, swing, bend, arm, elbow) {
  return {
    leftHip: 0.1 + swing * sin(phase),
    rightHip: 0.1 - swing * sin(phase),
    leftKnee: 0.1 + bend * max(cos(phase), 0),
    rightKnee: 0.1 + bend * max(-cos(phase), 0),
    leftShoulder: -arm * sin(phase),
    rightShoulder: arm * sin(phase),
    leftElbow: elbow,
    rightElbow: elbow,
  };
}

const both = (joint, angle) => ({ [`left${joint}`]: angle, [`right${joint}`]: angle });

// In the order of the model's actions. tempo: cycles a second; speed: metres a second.
// pose: how far the trunk leans, how far each limb is swung forward from hanging down,
// elbows bending forward and knees backward, in radians; lift: of the feet, in metres.
export const ACTIONS = [
  {
    name: "stand",
    tempo: 0.4,
    pose: (p) => ({ lean: 0.03 * sin(p), ...both("Shoulder", 0.05 * sin(p)) }),
  },
  {
    name: "walk",
    tempo: 0.9,
    speed: 1.2,
    pose: (p) => ({ lean: 0.05, ...stride(p, 0.45, 0.6, 0.4, 0.3) }),
  },
  {
    name: "run",
    tempo: 1.4,
    speed: 2.2,
    pose: (p) => ({ lean: 0.2, lift: 0.06 * cos(p) ** 2, ...stride(p, 0.8, 1.3, 0.8, 1.5) }),
  },
  {
    name: "jump",
    tempo: 0.8,
    pose: (p) => {
      const [crouch, flight] = [max(-sin(p), 0), max(sin(p), 0)];
      return {
        lift: 0.5 * flight * (2 - flight),
        lean: 0.3 * crouch,
        ...both("Hip", 0.04 + 0.9 * crouch),
        ...both("Knee", 0.08 + 1.5 * crouch),
        ...both("Shoulder", 2.4 * flight - 0.7 * crouch),
      };
    },
  },
  {
    name: "wave",
    tempo: 1.5,
    pose: (p) => ({ rightShoulder: 2.3, rightElbow: 0.5 + 0.5 * sin(p) }),
  },
  {
    name: "squat",
    tempo: 0.6,
    pose: (p) => ({
      lean: 0.35 * push(p),
      ...both("Hip", 0.04 + 1.3 * push(p)),
      ...both("Knee", 0.08 + 2 * push(p)),
      ...both("Shoulder", 1.4 * push(p)),
    }),
  },
  {
    name: "kick",
    tempo: 0.7,
    pose: (p) => {
      const out = max(sin(p), 0);
      return {
        lean: -0.25 * out,
        rightHip: 0.04 + 1.4 * out - 0.3 * max(-sin(p), 0),
        rightKnee: 0.08 + 0.9 * push(p) * (1 - out),
        leftShoulder: 0.6 * out,
        rightShoulder: -0.6 * out,
      };
    },
  },
  {
    name: "punch",
    tempo: 1.1,
    pose: (p) => {
      const [left, right] = [max(sin(p), 0), max(-sin(p), 0)];
      return {
        lean: 0.1,
        leftHip: 0.35,
        rightHip: -0.2,
        leftShoulder: 0.5 + left,
        leftElbow: 2 - 1.9 * left,
        rightShoulder: 0.5 + right,
        rightElbow: 2 - 1.9 * right,
      };
    },
  },
  {
    name: "jumping jack",
    tempo: 1,
    pose: (p) => ({
      lift: 0.1 * sin(p) ** 2,
      leftHip: -0.45 * push(p),
      rightHip: 0.45 * push(p),
      leftShoulder: -2.7 * push(p),
      rightShoulder: 2.7 * push(p),
      leftElbow: -0.2,
      rightElbow: 0.2,
    }),
  },
  {
    name: "bow",
    tempo: 0.5,
    pose: (p) => ({ lean: 1.1 * push(p), ...both("Hip", 0.04 - 0.1 * push(p)) }),
  },
];

const REST = {
  lean: 0,
  lift: 0,
  ...both("Shoulder", 0),
  ...both("Elbow", 0.2),
  ...both("Hip", 0.04),
  ...both("Knee", 0.08),
};

// A clip of one action: [frames][48], x1, y1, x2, y2 of each segment.
export function makeClip(index, frames, start = 0.6) {
  const action = ACTIONS[index];
  const clip = [];
  for (let frame = 0; frame < frames; frame++) {
    const seconds = frame / FRAMES_PER_SECOND;
    const pose = { ...REST, ...action.pose(start + 2 * PI * action.tempo * seconds) };
    const x = (action.speed ?? 0) * (seconds - (frames - 1) / FRAMES_PER_SECOND / 2);
    clip.push(placed(segments(pose), x, pose.lift));
  }
  return clip;
}

// With the lower foot on the ground.
function placed(ends, x, lift) {
  const lowest = Math.min(ends[8][1][1], ends[10][1][1]);
  const y = GROUND + lift - lowest;
  return ends.flatMap(([from, to]) => [from[0] + x, from[1] + y, to[0] + x, to[1] + y]);
}

// The ends of each segment, the pelvis's middle at the origin.
function segments(pose) {
  const along = ([x, y], angle, length) => [x + length * sin(angle), y - length * cos(angle)];
  const pelvis = [0, 0];
  const waist = along(pelvis, -pose.lean, -0.26);
  const neck = along(waist, -1.2 * pose.lean, -0.28);
  const head = along(neck, -1.3 * pose.lean, -0.24);
  const ends = [
    [neck, head],
    [waist, neck],
    [pelvis, waist],
  ];
  for (const side of ["left", "right"]) {
    const upper = pose[`${side}Shoulder`] - pose.lean;
    const elbow = along(neck, upper, 0.28);
    ends.push([neck, elbow], [elbow, along(elbow, upper + pose[`${side}Elbow`], 0.26)]);
  }
  for (const [side, x] of [
    ["left", -0.08],
    ["right", 0.08],
  ]) {
    const hip = pose[`${side}Hip`];
    const knee = along([x, 0], hip, 0.42);
    ends.push([[x, 0], knee], [knee, along(knee, hip - pose[`${side}Knee`], 0.42)]);
  }
  ends.push([
    [-0.08, 0],
    [0.08, 0],
  ]);
  return ends;
}
