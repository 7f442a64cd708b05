"""FID by torch-fidelity's Inception with weights from a file, of random numbers here.

./tests/run.sh --isolated makes the environment with torch, which JAXTBPR_TORCH_PYTHON names.
"""

import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import options
from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval.judging import scoring
from tests.isolated import environments
from tests.retrieval.colours import Colours, make_run, record

pytestmark = pytest.mark.isolated

MAKER = pathlib.Path(__file__).with_name("tiny_inception.py")


@pytest.fixture(scope="module")
def python():
    return environments.find_python("torch")


def people(root, colours):
    return make_run(root, [record(f"{k}", c, [c]) for k, c in enumerate(colours)], after="measure")


def run(workdir, python, weights, reference):
    stage = stages.STAGES["measure"]
    config = ConfigDict({"seed": 0, "measure": options.default_config(stage.options)})
    config.measure.fid.update({"python": python, "weights": str(weights)})
    config.measure.reference = str(reference)
    assert set(stage.fingerprint(config)) == {"clip", "reference", "fid"}
    workdir.dir("measure").mkdir(exist_ok=True)
    return stage.run(config, workdir)["measures"]


def test_fid_of_a_run_and_its_reference(tmp_path, python, monkeypatch):
    monkeypatch.setattr(scoring, "open_scorer", lambda options: Colours())
    own = people(tmp_path / "own", ["red", "green", "blue"])
    other = people(tmp_path / "other", ["green", "blue"])
    (tmp_path / "own/generate/images/2.png").write_bytes(b"no image")
    images = [tmp_path / "own/generate/images" / f"{k}.png" for k in (0, 1)]
    images += [tmp_path / "other/generate/images" / f"{k}.png" for k in (0, 1)]
    weights = tmp_path / "inception.pth"
    environments.run(python, MAKER, weights, tmp_path / "out.npz", *images)
    features = np.load(tmp_path / "out.npz")["features"]
    assert features.shape == (4, 2048)
    numbers = run(own, python, weights, other.root)
    expected = scoring.frechet_distance(features[:2], features[2:])
    assert expected > 1e-3
    np.testing.assert_allclose(numbers["fid"], expected, rtol=1e-4)
    assert numbers["images"] == 2


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path, python, monkeypatch):
    monkeypatch.setattr(scoring, "open_scorer", lambda options: Colours())
    program = (
        "import sys, torch, os\n"
        "class Evil:\n"
        "    def __reduce__(self): return (os.system, ('touch ' + sys.argv[2],))\n"
        "torch.save({'x': Evil()}, sys.argv[1])"
    )
    environments.run(python, "-c", program, tmp_path / "evil.pth", tmp_path / "ran")
    own, other = (people(tmp_path / name, ["red", "green"]) for name in ("own", "other"))
    with pytest.raises(
        UserError, match=r"evil.pth is not a state dict of torch-fidelity's Inception"
    ):
        run(own, python, tmp_path / "evil.pth", other.root)
    assert not (tmp_path / "ran").exists()
