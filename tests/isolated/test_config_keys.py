"""No key that open_clip or transformers give a meaning is unknown here."""

import json
import pathlib

import pytest

from jaxtbpr.retrieval.clip.weights import keys
from tests.isolated import environments

pytestmark = pytest.mark.isolated


@pytest.mark.parametrize(
    ("environment", "tool", "known"),
    [
        ("torch", "transformers", keys.HUGGINGFACE),
        ("newest", "transformers", keys.HUGGINGFACE),
        ("newest", "open_clip", keys.OPEN_CLIP["openai"]),
    ],
)
def test_every_field_of_the_real_config_has_a_verdict_that_bears_its_default(
    environment, tool, known
):
    script = pathlib.Path(__file__).with_name("config_fields.py")
    python = environments.find_python(environment)
    fields = json.loads(environments.run(python, script, f"--{tool}"))[tool]
    assert fields.keys() == known.keys()
    for part, defaults in fields.items():
        assert len(defaults) > 3
        assert defaults.keys() <= known[part].keys()
        keys.refuse(defaults, known[part], part, tool, keys.OFF)  # a model of defaults is here
