"""What workers see of images: what the program sees, but never more than 8 bits."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr.core.images import open_image
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import fid
from jaxtbpr.workers.worker.answering import images
from tests.datasets.folders import FAULTS, deep_bytes, turned_bytes, write_image


def test_workers_see_photographs_upright(tmp_path):
    (tmp_path / "a").write_bytes(turned_bytes(1))
    seen = images.open_image(tmp_path, "a")
    np.testing.assert_array_equal(seen, open_image(turned_bytes(1)))
    assert seen.size == (24, 12)


@pytest.mark.parametrize("fault", FAULTS)
def test_workers_refuse_what_the_program_refuses(tmp_path, fault):
    write_image(tmp_path / "a.png", 0, fault)
    with pytest.raises(images.UNREADABLE):
        images.open_image(tmp_path, "a.png")


def test_workers_read_an_image_whose_exif_is_broken(tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.eye(4, 3, dtype=np.uint8)).save(out, "PNG", exif=b"Exif\0\0none")
    (tmp_path / "a").write_bytes(out.getvalue())
    seen = images.open_image(tmp_path, "a")
    np.testing.assert_array_equal(seen, open_image(out.getvalue()))


def test_workers_refuse_what_would_become_white(tmp_path):
    (tmp_path / "a").write_bytes(deep_bytes(1))
    with pytest.raises(images.UNREADABLE, match="more than 8 bits"):
        images.open_image(tmp_path, "a")


def test_the_network_of_fid_is_given_what_the_program_sees(tmp_path, monkeypatch):
    given = [turned_bytes(1), deep_bytes(2)]
    shown = []

    def answer(directory, asked, tasks, options, section):
        for request in tasks["00000"]:
            shown.append(np.asarray(images.open_image(asked, request["image"])))
        return [{"features": "AAAAAA=="} for _ in shown]

    monkeypatch.setattr(clients, "answer_all", answer)
    (tmp_path / "requests").mkdir()
    config = ConfigDict({"measure": {"fid": {"weights": "w"}}})
    assert fid.features(given, config, tmp_path).shape == (2, 1)
    for data, pixels in zip(given, shown, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(open_image(data)))
