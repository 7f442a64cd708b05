"""Body proportions and postures: from an attribute record to the joints of a person.

A person stands at the origin of person space (see camera.py). A posture is a table of directions
of limbs, so a new posture is a new row. Hands that hold something reach for it (two-bone inverse
kinematics) whatever the posture.
"""

import dataclasses
import math

import numpy as np

Vec = np.ndarray  # float [3]: to the person's left, up, to the front; centimetres


@dataclasses.dataclass(frozen=True)
class Body:
    """Half widths and half depths of the trunk, limb thickness and heights, in centimetres."""

    size: float  # of the whole, 1 for a young or middle-aged man
    shoulder: float
    chest: float
    waist: float
    hip: float
    belly: float  # half depth at the waist
    bust: float  # half depth at the chest
    limb: float  # factor on the thickness of arms and legs
    head: float  # factor on the head
    stoop: float  # forward bend of the trunk, as a share of its length


def body_of(attributes: dict[str, str]) -> Body:
    """Returns the proportions for sex, age and build (about seven heads)."""
    female, old = attributes["sex"] == "female", attributes["age"] == "old"
    thick = {"slim": 0.84, "average": 1.0, "heavy": 1.26}[attributes["build"]]
    belly = {"slim": 0.82, "average": 1.0, "heavy": 1.62}[attributes["build"]]
    waist = {"slim": 0.84, "average": 1.0, "heavy": 1.45}[attributes["build"]]
    if attributes["age"] == "middle-aged":
        belly, waist = 1.1 * belly, 1.08 * waist
    return Body(
        size=(0.95 if female else 1.0) * (0.93 if old else 1.0),
        shoulder=(16.0 if female else 20.0) * (0.35 + 0.65 * thick),
        chest=(14.0 if female else 16.5) * thick,
        waist=(11.0 if female else 14.0) * waist,
        hip=(16.6 if female else 15.2) * thick,
        belly=9.5 * belly,
        bust=(11.5 if female else 11.0) * (0.4 + 0.6 * thick),
        limb=(0.92 if female else 1.04) * (0.25 + 0.75 * thick),
        head=1.1 if attributes["age"] == "young" else 1.04,
        stoop=0.24 if old else 0.0,
    )


# Directions (outwards, up, forwards) of upper arm, forearm, thigh and shin; the right side first.
# "raising hands" and "thumb up" keep the legs of "standing".
POSTURES: dict[str, dict[str, tuple[tuple[float, float, float], ...]]] = {
    "standing": {
        "arms": ((0.20, -1, 0.00), (0.10, -1, 0.14), (0.20, -1, 0.00), (0.10, -1, 0.14)),
        "legs": ((0.05, -1, 0.03), (0.02, -1, -0.04), (0.09, -1, 0.05), (0.04, -1, -0.05)),
    },
    "walking": {
        "arms": ((0.20, -1, 0.50), (0.00, -1, 0.80), (0.20, -1, -0.50), (0.12, -1, -0.10)),
        "legs": ((0.02, -1, -0.30), (0.02, -1, -0.75), (0.02, -1, 0.42), (0.00, -1, 0.12)),
    },
    "running": {
        "arms": ((0.35, -0.75, 0.60), (-0.35, 0.55, 0.9), (0.45, -0.7, -0.85), (0.1, -0.45, 0.9)),
        "legs": ((0.06, -1, -0.25), (0.04, -0.30, -1), (0.02, -0.75, 0.80), (0.00, -1, -0.20)),
    },
    "sitting": {
        "arms": ((0.22, -1, 0.22), (-0.10, -0.42, 0.9), (0.22, -1, 0.22), (-0.10, -0.42, 0.9)),
        "legs": ((0.16, -0.10, 1), (0.02, -1, 0.05), (0.16, -0.10, 1), (0.02, -1, 0.05)),
    },
    "raising hands": {
        "arms": ((0.80, 0.75, 0.10), (0.18, 1, 0.06), (0.80, 0.75, 0.10), (0.18, 1, 0.06)),
    },
    "thumb up": {
        "arms": ((0.35, -1, 0.20), (0.75, 0.70, 0.45), (0.20, -1, 0.00), (0.10, -1, 0.14)),
    },
}
UPPER_ARM, FOREARM, THIGH, SHIN, ANKLE = 28.0, 24.5, 42.0, 40.0, 8.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """The joints of one posed person: name -> point. Names end in _r or _l for the side."""

    body: Body
    joints: dict[str, Vec]
    lean: Vec  # unit vector from the pelvis to the neck
    hanging: frozenset[str]  # sides ("r", "l") whose arm hangs down

    def __getitem__(self, name: str) -> Vec:
        return self.joints[name]


def pose(attributes: dict[str, str], rng: np.random.Generator, reach: dict[str, Vec]) -> Figure:
    """Returns the figure of a record in its posture, with small random variations.

    reach: {"r" or "l": where that hand is, relative to its shoulder}, for a hand that is bound by
    what it holds; it overrules the posture.
    """
    body, posture = body_of(attributes), attributes["posture"]
    swap = rng.random() < 0.5 and posture in ("walking", "running")
    swap |= posture == "thumb up" and free_hand(attributes) == "l"
    joints = _legs(body, _wobble(rng, _directions(posture, "legs", swap), 0.035))
    pelvis = joints["pelvis"]
    forward = {"running": 0.22, "walking": 0.04, "sitting": 0.06}.get(posture, 0.0)
    lean = _unit(np.array([0.05 * rng.normal() * 0.6, 1.0, body.stoop + forward]))
    neck = pelvis + 54.0 * lean
    joints["neck"] = neck
    joints["head"] = neck + np.array([0.0, 13.8 * body.head, 3.0 + 16 * body.stoop])
    arms = _wobble(rng, _directions(posture, "arms", swap), 0.06)
    hanging = _arms(joints, body, arms, reach)
    size = body.size
    return Figure(body, {k: v * size for k, v in joints.items()}, lean, frozenset(hanging))


def free_hand(attributes: dict[str, str]) -> str:
    """Returns the hand for a gesture: the right ("r"), unless it holds something."""
    return "l" if attributes["item"] in ("umbrella", "phone") else "r"


def _directions(posture: str, limb: str, swap: bool) -> np.ndarray:
    """The four directions [4, 3] of arms or legs; swapped left for right in mid-stride."""
    rows = POSTURES[posture].get(limb, POSTURES["standing"][limb])
    return np.array(rows[2:] + rows[:2] if swap else rows, float)


def _wobble(rng: np.random.Generator, directions: np.ndarray, spread: float) -> np.ndarray:
    return directions + spread * np.clip(rng.normal(size=directions.shape), -2, 2)


def _legs(body: Body, d: np.ndarray) -> dict[str, Vec]:
    """Joints of the legs, the lower foot on the ground, and the pelvis above them."""
    joints, spread = {}, 0.52 * body.hip
    for side, sign, row in (("r", -1.0, 0), ("l", 1.0, 2)):
        flip = np.array([sign, 1.0, 1.0])
        hip = np.array([sign * spread, 0.0, 0.0])
        knee = hip + THIGH * _unit(d[row] * flip)
        joints |= {f"hip_{side}": hip, f"knee_{side}": knee}
        joints[f"ankle_{side}"] = knee + SHIN * _unit(d[row + 1] * flip)
    lift = ANKLE - min(joints["ankle_r"][1], joints["ankle_l"][1])
    joints["pelvis"] = np.array([0.0, 3.0, 0.0])
    return {name: point + np.array([0.0, lift, 0.0]) for name, point in joints.items()}


def _arms(joints: dict[str, Vec], body: Body, d: np.ndarray, reach: dict[str, Vec]) -> set[str]:
    """Adds the joints of the arms; returns the sides whose hand hangs below the elbow."""
    hanging = set()
    for side, sign, row in (("r", -1.0, 0), ("l", 1.0, 2)):
        flip = np.array([sign, 1.0, 1.0])
        shoulder = joints["neck"] + np.array([sign * 0.88 * body.shoulder, -12.5, -1.0])
        if side in reach:
            hand = shoulder + reach[side]
            elbow, hand = _bend(shoulder, hand, np.array([sign * 0.8, -0.7, -0.5]))
        else:
            elbow = shoulder + UPPER_ARM * _unit(d[row] * flip)
            hand = elbow + FOREARM * _unit(d[row + 1] * flip)
        joints |= {f"shoulder_{side}": shoulder, f"elbow_{side}": elbow, f"hand_{side}": hand}
        if hand[1] < elbow[1]:
            hanging.add(side)
    return hanging


def _bend(shoulder: Vec, hand: Vec, pole: Vec) -> tuple[Vec, Vec]:
    """Two-bone inverse kinematics: the elbow, on the side of `pole`, and the reached hand."""
    axis = hand - shoulder
    distance = min(float(np.linalg.norm(axis)), 0.985 * (UPPER_ARM + FOREARM))
    axis = _unit(axis)
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    height = math.sqrt(max(UPPER_ARM**2 - along**2, 0.0))
    out = _unit(pole - axis * float(pole @ axis))
    return shoulder + along * axis + height * out, shoulder + distance * axis


def _unit(v: Vec) -> Vec:
    return v / math.sqrt(float(v @ v))
