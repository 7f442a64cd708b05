#!/usr/bin/env bash
# Image.resize of Pillow 13 gives other bytes than that of Pillow 12 for some shapes: rows are then
# resized before columns, and each pass rounds and cuts to 0..255. A photograph of a person, 112x256,
# that a CLIP wants at 224x224 is of these shapes, a scene of 640x480 is not. Features that were
# stored under Pillow 12 are not found again to the bit, and resize(box=middle), which was equal to
# the middle of resize, is no longer.
#
# Seen with pillow 12.3.0 and 13.0.0, bicubic, on noise:
#   112x256 to 224x224: columns first in 12.3.0, rows first in 13.0.0; 640x480: the same bytes;
#   middle of 64x128 at 48x96: equal to resize(box=...) in 12.3.0, up to 8 levels off in 13.0.0.
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/resized.py" <<'PYTHON'
import hashlib
import json
import random

import PIL
from PIL import Image, ImageChops


def noise(size):
    pixels = random.Random(0).randbytes(3 * size[0] * size[1])
    return Image.frombytes("RGB", size, pixels)


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()[:12]


image = noise((64, 128))
middle = image.resize((48, 96), Image.Resampling.BICUBIC).crop((0, 24, 48, 72))
boxed = image.resize((48, 48), Image.Resampling.BICUBIC, box=(0, 32, 64, 96))
apart = max(high for _, high in ImageChops.difference(middle, boxed).getextrema())
sizes = {"person": (112, 256), "scene": (640, 480)}
found = {
    name: digest(noise(size).resize((224, 224), Image.Resampling.BICUBIC))
    for name, size in sizes.items()
}
first = {"columns": (224, 256), "rows": (112, 224)}
passes = {
    name: digest(
        noise(sizes["person"])
        .resize(size, Image.Resampling.BICUBIC)
        .resize((224, 224), Image.Resampling.BICUBIC)
    )
    for name, size in first.items()
}
found["first"] = [name for name in passes if passes[name] == found["person"]]
print(json.dumps({"pillow": PIL.__version__, "box": apart} | found))
PYTHON
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version"
    "$folder/$version/bin/python" "$folder/resized.py" | tee -a "$folder/found.jsonl"
done
python3 - "$folder/found.jsonl" <<'PYTHON'
import json
import sys

old, new = map(json.loads, open(sys.argv[1]))
assert (old["pillow"], new["pillow"]) == ("12.3.0", "13.0.0")
assert old["person"] != new["person"], "the same bytes in both"
assert (old["first"], new["first"]) == (["columns"], ["rows"]), (old["first"], new["first"])
assert old["scene"] == new["scene"], "other bytes here, too"
assert old["box"] == 0 < new["box"], (old["box"], new["box"])
print("pillow 12.3.0 and 13.0.0: other bytes for 112x256, the same for 640x480")
PYTHON
