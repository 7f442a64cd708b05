"""The eleven backgrounds, drawn with depth: sky or wall, things behind, ground.

Coordinates are percent of the image's height, x from the left edge, y down. The horizon lies at
`horizon`; a high camera sees mostly the ground, so each ground can be told from the others.
"""

import dataclasses
import math

import numpy as np

from jaxtbpr.render.canvas import Canvas, circle
from jaxtbpr.render.palette import RGB, light, mix, shade


@dataclasses.dataclass(frozen=True)
class Scene:
    """wide: width in percent of the height; horizon: y of the horizon; unit: pixels per percent;
    rng: draws the layout."""

    canvas: Canvas
    wide: float
    horizon: float
    unit: float
    rng: np.random.Generator

    def poly(self, points: list[float], colour: RGB, alpha: float = 1.0) -> None:
        self.canvas.fill([self.unit * p for p in points], colour, alpha)

    def rect(self, x0, y0, x1, y1, colour: RGB, alpha: float = 1.0) -> None:
        self.poly([x0, y0, x1, y0, x1, y1, x0, y1], colour, alpha)

    def disc(self, x, y, rx, ry, colour: RGB, alpha: float = 1.0) -> None:
        u = self.unit
        self.canvas.fill(circle((u * x, u * y), u * rx, u * ry), colour, alpha)

    def line(self, points: list[float], width: float, colour: RGB, alpha: float = 1.0) -> None:
        u = self.unit
        self.canvas.line([u * p for p in points], u * width, colour, alpha)

    def fade(self, y0: float, y1: float, top: RGB, bottom: RGB, steps: int = 10) -> None:
        """Fills y0..y1 with a gradient from `top` to `bottom`."""
        height = (y1 - y0) / steps
        for i in range(steps):
            tone = mix(top, bottom, (i + 0.5) / steps)
            end = min(y0 + (i + 2) * height, y1) + 0.5  # below the next step's soft edge
            self.rect(-1, y0 + i * height, self.wide + 1, end, tone)

    def ground(self, near: RGB, far: RGB) -> None:
        self.fade(self.horizon, 100, far, near, 8)

    def spots(self, count: int, colour: RGB, size: float, alpha: float = 0.6) -> None:
        """Strews flat spots over the ground, small far off and large near by."""
        for x, t in self.rng.random((count, 2)).tolist():
            y = self.horizon + 2 + (98 - self.horizon) * t
            r = size * (0.35 + 0.65 * t)
            self.disc(x * self.wide, y, r, 0.45 * r, colour, alpha)

    def rays(self, count: int, width: float, colour: RGB, alpha: float = 1.0) -> None:
        """Lines on the ground that run to the vanishing point."""
        vx, vy = self.wide / 2 + 6 * (self.rng.random() - 0.5), self.horizon - 6
        for i in range(count):
            x = self.wide / 2 + (i - (count - 1) / 2) * 1.9 * self.wide / count * 1.6
            t = (self.horizon - vy) / (100 - vy)
            far = [vx + t * (x - vx), self.horizon]
            thin, thick = 0.5 * width * t, 0.5 * width
            edge = [far[0] - thin, far[1], far[0] + thin, far[1], x + thick, 100, x - thick, 100]
            self.poly(edge, colour, alpha)

    def rows(self, count: int, colour: RGB, width: float, alpha: float = 1.0) -> None:
        """Level lines on the ground, denser towards the horizon."""
        for i in range(1, count + 1):
            t = (i / count) ** 1.8
            y = self.horizon + (100 - self.horizon) * t
            self.line([-1, y, self.wide + 1, y], width * (0.3 + 0.7 * t), colour, alpha)

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def jitter(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def draw(scene: Scene, background: str) -> None:
    """Draws one background of attributes.SCENE["background"]."""
    BACKGROUNDS[background](scene)


def street(s: Scene) -> None:
    s.fade(0, s.horizon, (132, 184, 232), (222, 234, 240))
    x = -s.jitter(0, 8)
    while x < s.wide:
        wide, top = s.jitter(12, 20), s.horizon - s.jitter(26, 60)
        wall = s.pick(
            (206, 148, 120), (226, 204, 170), (170, 178, 190), (190, 120, 104), (150, 160, 150)
        )
        _house(s, x, top, wide, wall)
        x += wide
    s.rect(-1, s.horizon, s.wide + 1, 100, (196, 194, 188))
    road = s.horizon + 0.16 * (100 - s.horizon)
    s.rect(-1, s.horizon + 3, s.wide + 1, road + 16, (98, 102, 110))
    for i in range(9):
        x = i * 9 - s.jitter(0, 4)
        s.poly(
            [x, road + 6, x + 5, road + 6, x + 4.5, road + 8, x - 0.8, road + 8], (240, 240, 232)
        )
    s.rect(-1, road + 16, s.wide + 1, road + 18.5, (150, 150, 148))
    s.rays(7, 0.7, (160, 158, 152), 0.8)
    s.rows(5, (160, 158, 152), 0.8, 0.8)
    s.rect(-1, s.horizon + 3, s.wide + 1, road + 16, (98, 102, 110))
    for i in range(8):
        s.rect(i * 10 - 3, road + 6, i * 10 + 2, road + 7.6, (244, 244, 236))
    post = s.pick(0.1, 0.9) * s.wide
    s.line([post, 4, post, road + 17], 1.2, (54, 58, 66))
    s.disc(post, 4, 2.6, 2.0, (255, 240, 180))


def _house(s: Scene, x: float, top: float, wide: float, wall: RGB) -> None:
    s.rect(x, top, x + wide, s.horizon, wall)
    s.rect(x + 0.8 * wide, top, x + wide, s.horizon, shade(wall, 0.2))
    s.rect(x - 0.5, top - 1.5, x + wide, top + 0.5, shade(wall, 0.35))
    pane = s.pick((92, 116, 142), (250, 232, 168), (124, 152, 176))
    y = top + 4
    while y < s.horizon - 7:
        for k in (0.18, 0.58):
            s.rect(x + k * wide, y, x + (k + 0.24) * wide, y + 5.5, pane)
        y += 9


def park(s: Scene) -> None:
    s.fade(0, s.horizon, (120, 190, 240), (216, 238, 246))
    _clouds(s)
    _crowns(s, s.horizon - 4, (92, 160, 92), 9, 7)
    _crowns(s, s.horizon + 1, (62, 132, 70), 7, 8)
    s.ground((112, 184, 76), (150, 206, 104))
    a, b = s.jitter(0.3, 0.7) * s.wide, s.jitter(0.2, 0.8) * s.wide
    h = s.horizon
    s.poly([a - 2, h, a + 2, h, b + 8, h + 0.4 * (100 - h), s.wide * 0.9, 100, s.wide * 0.1, 100,
            b - 6, h + 0.4 * (100 - h)], (226, 208, 164))  # fmt: skip
    s.spots(14, (250, 250, 250), 0.9, 0.9)
    s.spots(10, s.pick((244, 96, 120), (250, 208, 70), (190, 120, 220)), 1.0, 0.95)
    x = s.pick(0.02, 0.72) * s.wide
    s.rect(x, h + 6, x + 14, h + 7.5, (140, 90, 52))
    s.rect(x, h + 10, x + 14, h + 11.5, (140, 90, 52))
    for k in (1.5, 12):
        s.rect(x + k, h + 6, x + k + 1, h + 15, (70, 62, 60))


def _crowns(s: Scene, base: float, colour: RGB, count: int, size: float) -> None:
    for i in range(count):
        x = (i + s.jitter(0.1, 0.9)) * s.wide / count
        r = size * s.jitter(0.8, 1.4)
        tone = mix(colour, light(colour, 0.25), s.jitter(0, 1))
        s.rect(x - 0.8, base - r, x + 0.8, base + 2, (104, 76, 54))
        s.disc(x, base - r, r, r * 1.1, tone)
        s.disc(x - 0.3 * r, base - 1.3 * r, 0.5 * r, 0.5 * r, light(tone, 0.25), 0.5)


def _clouds(s: Scene) -> None:
    for _ in range(3):
        x, y = s.jitter(0, s.wide), s.jitter(4, max(6.0, s.horizon - 22))
        for dx, r in ((-4, 2.4), (0, 3.6), (4.4, 2.6)):
            s.disc(x + dx, y, r * 1.5, r * 0.8, (255, 255, 255), 0.75)


def shop(s: Scene) -> None:
    s.fade(0, s.horizon, (250, 240, 220), (238, 218, 186))
    goods = (
        (226, 92, 84),
        (86, 160, 210),
        (244, 190, 72),
        (112, 178, 104),
        (176, 118, 196),
        (240, 240, 236),
    )
    shelf = s.horizon - 2.0
    while shelf > 8:
        x = -s.jitter(0, 4)
        while x < s.wide:
            w, t = s.jitter(2.6, 5.0), s.jitter(4.5, 8.0)
            s.rect(x, shelf - t, x + w - 0.5, shelf, s.pick(*goods))
            x += w
        s.rect(-1, shelf, s.wide + 1, shelf + 1.6, (142, 102, 70))
        shelf -= 11.5
    for k in (0.2, 0.8):
        s.rect(k * s.wide - 6, 0, k * s.wide + 6, 2.2, (255, 255, 246))
    s.ground((232, 222, 206), (206, 190, 168))
    _tiles(s, (196, 160, 128))
    x = s.pick(-4.0, s.wide - 12)
    s.rect(x, s.horizon + 2, x + 16, s.horizon + 20, (170, 112, 70))
    s.rect(x - 1, s.horizon, x + 17, s.horizon + 3, (112, 70, 46))


def _tiles(s: Scene, colour: RGB) -> None:
    """A chequered floor in perspective."""
    span, n = 100 - s.horizon, 7
    edges = [s.horizon + span * (i / n) ** 1.7 for i in range(n + 1)]
    for i in range(n):
        for k in range(-5, 5):
            if (i + k) % 2:
                quad = []
                for y, order in ((edges[i], (k, k + 1)), (edges[i + 1], (k + 1, k))):
                    depth = 0.35 + 0.65 * (y - s.horizon) / span
                    quad += [n for j in order for n in (s.wide / 2 + j * 11 * depth, y)]
                s.poly(quad, colour, 0.75)


def station(s: Scene) -> None:
    s.fade(0, s.horizon, (96, 104, 116), (150, 158, 166))
    top, base = s.horizon - 34, s.horizon + 2
    s.rect(-1, top, s.wide + 1, base, (214, 218, 222))
    stripe = s.pick((204, 44, 50), (36, 98, 176), (30, 140, 96))
    s.rect(-1, base - 11, s.wide + 1, base - 6, stripe)
    x = -s.jitter(0, 12)
    while x < s.wide:
        s.rect(x, top + 5, x + 10, top + 16, (48, 64, 84))
        s.poly(
            [x + 1, top + 15, x + 5, top + 5, x + 7, top + 5, x + 3, top + 15], (150, 180, 200), 0.6
        )
        s.rect(x + 11.5, top + 4, x + 16, base - 1, shade((214, 218, 222), 0.15))
        x += 18
    s.rect(-1, base, s.wide + 1, base + 5, (46, 46, 52))
    if s.horizon > 30:  # the roof of the platform
        s.rect(-1, 0, s.wide + 1, 5, (70, 76, 86))
    s.rect(-1, base + 4, s.wide + 1, 100, (172, 170, 168))
    s.rect(-1, base + 4, s.wide + 1, base + 6, (222, 222, 218))
    s.rect(-1, base + 9, s.wide + 1, base + 13, (250, 206, 48))
    for i in range(1, 5):
        y = base + 13 + (100 - base - 13) * (i / 5) ** 1.4
        s.line([-1, y, s.wide + 1, y], 0.6, (140, 138, 138), 0.9)
    post = s.pick(0.08, 0.92) * s.wide
    s.rect(post - 2, 0, post + 2, base + 16, (70, 92, 84))
    sign = s.wide - post
    s.rect(sign - 8, s.horizon - 42, sign + 8, s.horizon - 36, (24, 72, 150))
    s.rect(sign - 5, s.horizon - 40, sign + 5, s.horizon - 38, (250, 250, 250))


def car_park(s: Scene) -> None:
    s.fade(0, s.horizon, (168, 178, 190), (214, 218, 220))
    s.rect(-1, s.horizon - 9, s.wide + 1, s.horizon + 1, (140, 142, 140))
    s.ground((84, 86, 92), (112, 114, 120))
    s.rays(8, 1.8, (236, 236, 232))
    far = s.horizon + 0.33 * (100 - s.horizon)
    s.line([-1, far, s.wide + 1, far], 1.2, (236, 236, 232))
    x = -s.jitter(0, 12)
    while x < s.wide:
        _car(
            s,
            x,
            s.horizon + 7,
            s.pick((178, 52, 52), (60, 96, 150), (212, 212, 214), (54, 56, 62), (198, 168, 70)),
        )
        x += 21
    post = s.pick(0.1, 0.88) * s.wide
    s.rect(post - 0.6, s.horizon - 32, post + 0.6, s.horizon + 6, (90, 94, 100))
    s.rect(post - 4, s.horizon - 40, post + 4, s.horizon - 31, (30, 90, 190))
    s.line([post - 1.4, s.horizon - 33, post - 1.4, s.horizon - 38.4], 1.2, (250, 250, 250))
    s.disc(post + 0.2, s.horizon - 37, 2.0, 1.8, (250, 250, 250))


def _car(s: Scene, x: float, y: float, colour: RGB) -> None:
    s.disc(x + 9, y + 0.6, 10, 1.6, (40, 40, 46), 0.6)
    s.poly(
        [x + 3, y - 7, x + 5.4, y - 12.5, x + 13, y - 12.5, x + 15.6, y - 7], shade(colour, 0.12)
    )
    s.poly(
        [x + 4.6, y - 7.2, x + 6.2, y - 11.4, x + 12.3, y - 11.4, x + 14, y - 7.2], (70, 92, 112)
    )
    s.rect(x, y - 7.2, x + 18.5, y - 1.2, colour)
    s.rect(x, y - 3.0, x + 18.5, y - 1.2, shade(colour, 0.35))
    for k in (4, 14.5):
        s.disc(x + k, y - 1, 2.3, 2.3, (30, 30, 34))
        s.disc(x + k, y - 1, 1.0, 1.0, (190, 192, 196))


def forest(s: Scene) -> None:
    s.fade(0, s.horizon, (116, 158, 112), (190, 210, 150))
    for tone, count, wide in (((100, 120, 88), 9, 1.4), ((82, 78, 62), 6, 2.6)):
        for i in range(count):
            x = (i + s.jitter(0, 1)) * s.wide / count
            s.rect(x - wide / 2, -1, x + wide / 2, s.horizon + 4, tone)
    for _ in range(16):
        x, r = s.jitter(0, s.wide), s.jitter(4, 9)
        tone = s.pick((54, 104, 58), (70, 124, 60), (42, 88, 54))
        s.disc(x, s.jitter(-4, min(22.0, s.horizon)), r, r * 0.75, tone, 0.9)
    s.ground((110, 82, 52), (122, 112, 62))
    for x in (s.jitter(-2, 0.2 * s.wide), s.jitter(0.82 * s.wide, s.wide + 2)):
        s.poly([x - 3, -1, x + 3, -1, x + 3.6, s.horizon + 14, x + 6, s.horizon + 19,
                x - 6, s.horizon + 19, x - 3.6, s.horizon + 14], (78, 56, 42))  # fmt: skip
        s.line([x - 1.4, 0, x - 1.6, s.horizon + 15], 0.8, (112, 86, 64), 0.8)
    s.spots(26, (168, 112, 48), 1.7, 0.8)
    s.spots(18, (84, 124, 58), 2.4, 0.8)
    for _ in range(8):
        x, y = s.jitter(0, s.wide), s.jitter(s.horizon + 4, 98)
        for a in (-3, -1.4, 0, 1.4, 3):
            s.line([x, y, x + a, y - 4 + abs(a) * 0.6], 0.7, (66, 130, 64))


def desert(s: Scene) -> None:
    s.fade(0, s.horizon, (246, 178, 106), (254, 226, 178))
    s.disc(s.jitter(0.15, 0.85) * s.wide, s.horizon - s.jitter(10, 26), 5.5, 5.5, (255, 244, 206))
    h = s.horizon
    s.poly([-1, h + 2, -1, h - 7, 0.22 * s.wide, h - 14, 0.3 * s.wide, h - 13, 0.52 * s.wide, h - 4,
            0.7 * s.wide, h - 10, 0.86 * s.wide, h - 10, s.wide + 1, h - 3, s.wide + 1, h + 2],
           (196, 116, 78))  # fmt: skip
    s.ground((232, 172, 98), (240, 196, 128))
    for i in range(5):
        y = h + (100 - h) * ((i + 0.6) / 5) ** 1.3
        a = s.jitter(-6, 6)
        ridge = [-1, y, 0.3 * s.wide, y - 3 + a * 0.3, 0.65 * s.wide, y + 2, s.wide + 1, y - 2]
        s.poly([*ridge, s.wide + 1, y + 6, 0.5 * s.wide, y + 4, -1, y + 7], (214, 146, 78), 0.7)
        s.line(ridge, 0.8, (252, 214, 150), 0.9)
    x = s.pick(0.12, 0.86) * s.wide
    cactus = (74, 134, 82)
    s.line([x, h - 16, x, h + 8], 3.4, cactus)
    s.line([x - 5, h - 9, x - 5, h - 3, x, h - 3], 2.2, cactus)
    s.line([x + 5, h - 12, x + 5, h - 5, x, h - 5], 2.2, cactus)
    s.spots(7, (170, 104, 66), 1.8, 0.9)


def beach(s: Scene) -> None:
    s.fade(0, s.horizon, (96, 186, 244), (204, 238, 250))
    _clouds(s)
    h, shore = s.horizon, s.horizon + 0.24 * (100 - s.horizon)
    s.fade(h, shore + 2, (24, 128, 184), (94, 208, 210), 6)
    for i in range(4):
        y = h + (shore - h) * (i + 0.7) / 4
        wave = [n for k in range(9) for n in (k * s.wide / 8, y + 0.8 * math.sin(k * 2.1 + i))]
        s.line(wave, 0.7, (236, 250, 252), 0.8)
    foam = [
        n for k in range(9) for n in (k * s.wide / 8, shore + 1.6 * math.sin(k * 1.7 + s.horizon))
    ]
    s.poly([-1, 101, -1, shore, *foam, s.wide + 1, shore, s.wide + 1, 101], (246, 224, 172))
    s.line(foam, 2.2, (255, 255, 255))
    s.spots(22, (222, 192, 134), 1.6, 0.8)
    s.spots(5, (252, 150, 120), 1.2, 0.9)
    x = s.pick(0.14, 0.84) * s.wide
    s.line([x, h - 14, x + 1.5, shore + 16], 1.0, (250, 250, 246))
    for k in range(6):
        tone = (238, 84, 78) if k % 2 else (252, 248, 240)
        s.poly([x, h - 17, x - 12 + 4 * k, h - 7, x - 8 + 4 * k, h - 7], tone)


def airport(s: Scene) -> None:
    s.fade(0, s.horizon, (150, 204, 244), (228, 242, 250))
    h = s.horizon
    s.rect(-1, h - 8, s.wide + 1, h, (148, 164, 150))
    x, y = s.jitter(0.0, 0.4) * s.wide, h - 16
    s.poly([x, y, x + 30, y - 2, x + 36, y + 2, x + 30, y + 4.4, x + 2, y + 4.4], (252, 252, 252))
    s.poly(
        [x + 1, y + 0.5, x - 4, y - 9, x + 1, y - 9, x + 8, y], s.pick((206, 40, 60), (30, 90, 180))
    )
    s.poly([x + 14, y + 2.6, x + 6, y + 9, x + 10, y + 9, x + 22, y + 2.8], (188, 194, 202))
    for k in range(7):
        s.rect(x + 8 + 3 * k, y + 0.4, x + 9.4 + 3 * k, y + 1.8, (60, 90, 130))
    offset = s.jitter(0, 16)
    for k in range(-1, int(s.wide / 16) + 2):
        s.rect(16 * k + offset, -1, 16 * k + offset + 1.6, h, (92, 104, 120))
    s.rect(-1, h - 2, s.wide + 1, h + 1.5, (92, 104, 120))
    s.ground((206, 216, 228), (172, 186, 202))
    s.rays(6, 0.7, (240, 246, 250), 0.9)
    s.rows(5, (240, 246, 250), 0.8, 0.9)
    left = s.pick(-6.0, s.wide - 16)
    for k in range(4):
        s.rect(left + 6 * k, h + 2, left + 6 * k + 5, h + 9, (44, 70, 116))
        s.rect(left + 6 * k, h + 9.6, left + 6 * k + 5, h + 12, (30, 50, 88))
    s.rect(left, h + 12, left + 24, h + 13, (60, 66, 76))
    sign = s.wide * 0.5 - (left - s.wide * 0.5) * 0.5
    s.rect(sign - 9, 4, sign + 9, 11, (30, 34, 42))
    s.rect(sign - 7, 6, sign - 3, 9, (250, 208, 50))
    s.rect(sign - 1, 6.6, sign + 7, 8.4, (250, 208, 50))


def farm(s: Scene) -> None:
    s.fade(0, s.horizon, (126, 196, 240), (232, 240, 220))
    _clouds(s)
    h = s.horizon
    s.poly(
        [-1, h + 1, -1, h - 5, 0.4 * s.wide, h - 9, s.wide + 1, h - 4, s.wide + 1, h + 1],
        (132, 176, 96),
    )
    x = s.pick(0.0, s.wide - 22)
    s.rect(x, h - 17, x + 20, h + 2, (178, 50, 44))
    s.poly(
        [x - 2, h - 17, x + 3, h - 25, x + 10, h - 29, x + 17, h - 25, x + 22, h - 17],
        (110, 40, 40),
    )
    s.rect(x + 6, h - 10, x + 14, h + 2, (250, 244, 232))
    s.line([x + 6, h - 10, x + 14, h + 2], 0.9, (178, 50, 44))
    s.line([x + 14, h - 10, x + 6, h + 2], 0.9, (178, 50, 44))
    s.ground((146, 112, 60), (196, 178, 92))
    s.rays(13, 4.6, (112, 156, 58))
    s.rays(13, 1.2, (162, 198, 84), 0.9)
    y = h + 6
    for k in range(8):
        post = k * 9 - s.jitter(0, 2)
        s.rect(post, y - 7, post + 1.4, y + 4, (236, 228, 212))
    for dy in (-5, -1):
        s.rect(-1, y + dy, s.wide + 1, y + dy + 1.4, (236, 228, 212))
    bale = s.pick(0.16, 0.84) * s.wide
    s.disc(bale, h + 15, 6, 5.4, (222, 180, 84))
    s.disc(bale, h + 15, 3.4, 3.0, (196, 148, 62))
    s.disc(bale, h + 15, 1.4, 1.2, (222, 180, 84))


def lake(s: Scene) -> None:
    s.fade(0, s.horizon, (142, 178, 220), (240, 226, 214))
    h = s.horizon
    for tone, low, high in (((128, 142, 176), 12, 26), ((88, 118, 128), 6, 14)):
        ridge = [n for k in range(8) for n in (k * s.wide / 7, h - s.jitter(low, high))]
        s.poly([-1, h + 1, *ridge, s.wide + 1, h + 1], tone)
    shore = h + 0.52 * (100 - h)
    s.fade(h, shore + 2, (128, 166, 196), (40, 104, 152), 7)
    for _ in range(16):
        x, y = s.jitter(0, s.wide), s.jitter(h + 1, shore)
        s.line([x - s.jitter(2, 7), y, x + s.jitter(2, 7), y], 0.7, (206, 226, 238), 0.75)
    s.poly([-1, 101, -1, shore - 2, 0.3 * s.wide, shore + 2, 0.7 * s.wide, shore - 1,
            s.wide + 1, shore + 3, s.wide + 1, 101], (122, 146, 88))  # fmt: skip
    a, b = 0.5 * s.wide - 3, 0.5 * s.wide + 3
    s.poly([a, shore - 10, b, shore - 10, s.wide * 0.98, 101, s.wide * 0.02, 101], (166, 124, 84))
    for i in range(9):
        t = (i / 9) ** 1.5
        y = shore - 10 + (111 - shore) * t
        half = 3 + (0.48 * s.wide - 3) * t
        s.line([0.5 * s.wide - half, y, 0.5 * s.wide + half, y], 0.5 + 0.5 * t, (112, 78, 52))
    for k in range(9):
        x = s.jitter(0, 0.14) * s.wide if k % 2 else s.jitter(0.86, 1) * s.wide
        y = shore + s.jitter(0, 12)
        s.line([x, y, x + s.jitter(-1, 1), y - s.jitter(10, 18)], 0.7, (92, 120, 60))


BACKGROUNDS = {
    "street": street,
    "park": park,
    "shop": shop,
    "station": station,
    "car park": car_park,
    "forest": forest,
    "desert": desert,
    "beach": beach,
    "airport": airport,
    "farm": farm,
    "lake": lake,
}
