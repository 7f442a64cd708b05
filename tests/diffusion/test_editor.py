"""Editing: what the methods keep, that targets share one source, that nothing is in vain."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.checkpoint import open_checkpoint
from jaxtbpr.diffusion.editing import masactrl
from jaxtbpr.diffusion.editing.editor import Editing, Editor, Edits
from jaxtbpr.diffusion.editing.prompts import Target
from jaxtbpr.diffusion.generator import Sampling, to_pixels
from jaxtbpr.diffusion.layers import from_pixels
from tests.conftest import DATA

MODELS = DATA / "reference" / "diffusion"
SIZE = 32, 16
SAMPLING = Sampling(steps=3, guidance_scale=3.0, height=SIZE[0], width=SIZE[1])
PEOPLE = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
IDS = ["a", "b", "c"]
STREET = "a person in the street"
PLACES = [Target("a person in the lake", weights={"lake": 2.0}), Target("a person in the forest")]


def make_editor(model, targets=2, sampling=SAMPLING, **changes):
    editing = Editing(**{"gradient_scale": 50.0} | changes)
    return Editor(
        open_checkpoint(MODELS / model), sampling, editing, targets=targets, seed=0, batch_size=1
    )


@pytest.fixture(scope="module")
def editor():
    """Noise map guidance and prompt-to-prompt of a model that predicts velocities."""
    return make_editor("sd2_tiny", noise_map_scale=1.0)


def replaced(targets=tuple(PLACES), words=("lake", "forest")):
    return Edits(STREET, targets, ["street"], [[word] for word in words])


@pytest.fixture(scope="module")
def edited(editor):
    """The images of two edits of three people, and whether they are finite."""
    return editor.apply([replaced()] * 3, IDS, PEOPLE).wait()


def test_every_image_gets_all_its_targets(edited):
    pixels, finite = edited
    assert pixels.shape == (3, 2, *SIZE, 3)
    assert finite.all()
    assert (pixels[:, 0] != pixels[:, 1]).any(axis=(1, 2, 3)).all()


def test_an_edit_at_its_place_does_not_depend_on_its_neighbours(editor, edited):
    others = [replaced(), Edits(STREET, [Target(STREET)] * 2), replaced()]
    pixels, _ = editor.apply(others, IDS, PEOPLE[[0, 2, 2]]).wait()
    np.testing.assert_array_equal(pixels[0], edited[0][0])
    np.testing.assert_array_equal(pixels[2], edited[0][2])


def test_targets_do_not_touch_each_other(editor, edited):
    turned = replaced(tuple(PLACES[::-1]), ("forest", "lake"))
    pixels, _ = editor.apply([turned] * 3, IDS, PEOPLE).wait()
    off = np.abs(pixels[:, ::-1].astype(int) - edited[0])
    assert off.max() <= 1  # rows of a product at other places


def test_nothing_is_compiled_again_for_other_prompts_words_or_methods(editor, edited, caplog):
    with jax.log_compiles():
        style = Target("oil painting, a man in a hat", "refine", weights={"oil painting": 3.0})
        again = Target("a man in a hat", "reweight", weights={"hat": 0.5}, cross=0.3)
        editor.apply([Edits("a man in a hat", [style, again])], ["d"], PEOPLE[:1]).wait()
    assert "Compiling" not in caplog.text


def test_the_same_prompt_and_no_new_weight_is_no_edit_of_the_layout(editor):
    """Both targets are the source's prompt, so they are the same image."""
    pixels, _ = editor.apply([Edits(STREET, [Target(STREET)] * 2)], IDS[:1], PEOPLE[:1]).wait()
    off = np.abs(pixels[0, 0].astype(int) - pixels[0, 1])
    assert off.max() <= 1


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (Edits(STREET, [Target("a person by the lake")] * 2, ["road"], [["lake"]] * 2), "'road'"),
        (Edits(STREET, [Target("a person")] * 2), "use as many, or 'refine'"),
        (Edits(STREET, [Target("a " * 80, "refine")] * 2), "has 82 tokens"),
    ],
)
def test_edits_that_cannot_be_made_are_told(editor, edits, message):
    assert message in editor.problem(edits)
    with pytest.raises(InputError, match=message.replace("'", ".")):
        editor.apply([edits], IDS[:1], PEOPLE[:1])
    assert editor.problem(replaced()) == ""


def test_words_of_a_blend_are_not_ignored_where_none_is_made():
    editor = make_editor("sd2_tiny", blend=False)
    assert editor.problem(replaced()) == "words of a blend need an editor with blend=True"
    assert editor.problem(Edits(STREET, PLACES)) == ""


def test_attention_in_blocks_that_are_not_there_is_refused():
    with pytest.raises(InputError, match="blocks 10 to 15 would change nothing: this UNet has"):
        make_editor("sd2_tiny", method="masactrl")


def test_blocks_beyond_the_last_are_left_out():
    networks = make_editor("sd2_tiny", method="inversion").networks
    layers = networks.attention_layers((16, 8))
    count = 1 + max(layer.block for layer in layers)
    chosen = masactrl.choose(layers, range(count - 1, count + 9))
    assert chosen.tolist() == [False] * (count - 1) + [True]


def test_an_inversion_leads_back_to_the_image_and_another_prompt_elsewhere():
    """Mutual self-attention has no effect where source and target are the same."""
    sampling = dataclasses.replace(SAMPLING, steps=20, guidance_scale=1.0)
    editor = make_editor(
        "sd2_tiny", 1, sampling, method="masactrl", noise_map_scale=0.0, first_step=0,
        blocks=tuple(range(9)), inversion_rule="current",
    )  # fmt: skip
    networks, params = editor.networks, editor._params
    mean, _ = networks.encode_image(params, from_pixels(PEOPLE[:1]))
    expected = to_pixels(networks, params, mean * networks.scaling_factor)[0].astype(int)

    def off(prompt):
        """How far the image with this prompt is from the image that the VAE gives back."""
        pixels, _ = editor.apply([Edits(STREET, [Target(prompt)])], IDS[:1], PEOPLE[:1]).wait()
        return np.abs(pixels[0] - expected).mean()

    assert off(STREET) < 0.7 * off("snow")
