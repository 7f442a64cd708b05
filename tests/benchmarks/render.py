"""Images a second of the renderer, one process, one thread: `python tests/benchmarks/render.py`.

Draws sampled people in sampled scenes at 128x64 and at 512x256, with and without PNG. The first
pass fills the caches (stroke maps, film grain) and is not counted. Seconds are of CPU time, so that
other work on the machine counts little.
"""

import time

from jaxtbpr.core import seeds
from jaxtbpr.core.attributes import sample_person, sample_scene
from jaxtbpr.render import render, render_png


def rate(draw, records: list[dict], **size: int) -> float:
    """Returns images a second of the better of two passes over `records`."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        for i, record in enumerate(records):
            draw(record, seed=0, record_id=str(i), **size)
        seconds.append(time.process_time() - start)
    return len(records) / min(seconds[1:])


def main() -> None:
    records = [sample_person(seeds.rng(0, i)) | sample_scene(seeds.rng(1, i)) for i in range(400)]
    for name, draw in (("pixels", render), ("PNG bytes", render_png)):
        print(f"128x64 {name}: {rate(draw, records):.0f} images/s per core")
    large = rate(render, records[:40], height=512, width=256)
    print(f"512x256 pixels: {large:.0f} images/s per core")


if __name__ == "__main__":
    main()
