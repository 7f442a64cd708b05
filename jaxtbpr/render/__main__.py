"""Draws a contact sheet: `jaxtbpr draw --out sheet.png`.

Each row is one identity in several scenes: the clothes stay, all else changes.
"""

import os

from absl import flags
from PIL import Image

from jaxtbpr.core import command, files, seeds
from jaxtbpr.core.attributes import sample_person, sample_scene
from jaxtbpr.core.errors import UserError
from jaxtbpr.render import contact_sheet, render

_OUT = flags.DEFINE_string("out", "sheet.png", "image file to write")
_ROWS = flags.DEFINE_integer("rows", 4, "identities", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 10, "scenes of each identity", lower_bound=1)
_HEIGHT = flags.DEFINE_integer("height", 256, "height of one image in pixels", lower_bound=16)
_SEED = flags.DEFINE_integer("seed", 0, "random seed")


def main() -> None:
    files.check_output(_OUT.value, "--out")
    if os.path.splitext(_OUT.value)[1].lower() not in Image.registered_extensions():
        raise UserError(
            f"--out={_OUT.value} is not in a known image format; give a name like a.png."
        )
    rows, columns = _ROWS.value, _COLUMNS.value
    images = [_image(row, column) for row in range(rows) for column in range(columns)]
    Image.fromarray(contact_sheet(images, columns)).save(_OUT.value)
    print(f"wrote {_OUT.value}: {rows} people in {columns} scenes each")


def _image(row: int, column: int):
    person = sample_person(seeds.rng(_SEED.value, "sheet", row))
    scene = sample_scene(seeds.rng(_SEED.value, "sheet", row, column))
    size = {"height": _HEIGHT.value, "width": _HEIGHT.value // 2}
    return render(person | scene, seed=_SEED.value, record_id=f"{row}-{column}", **size)


COMMAND = "draw", "draw a sheet of people"

if __name__ == "__main__":
    command.run(main, "--out, --rows, --columns, --height or --seed")
