"""Checkpoints: the last and the selected one are kept, and known again by a later process."""

import jax
import jax.numpy as jnp
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.training.checkpoint import Checkpoints
from jaxtbpr.retrieval.training.step import TrainState


def state(step: int) -> TrainState:
    value = jnp.full((2,), step, jnp.float32)
    return TrainState(params={"w": value}, step=jnp.int32(step), opt_state=(value,), key=value)


def save(directory, scores):
    with Checkpoints(directory) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state(step), {"batches": step}, score)


@pytest.mark.parametrize(
    ("scores", "selected"),
    [
        ({1: (0.2, 0.3), 2: (0.9, 0.1), 3: (0.5, 0.9)}, 2),
        ({1: (0.5, 0.3), 2: (0.5, 0.4), 3: (0.5, 0.1)}, 2),
        ({1: (0.5, 0.3), 2: (0.5, 0.3), 3: (0.1, 0.1)}, 2),
        ({1: (0.0, 0.0), 2: None, 3: None}, 1),
        ({1: None, 2: None}, 2),
    ],
)
def test_the_selected_checkpoint_is_known_in_a_later_process(tmp_path, scores, selected):
    directory = tmp_path / "run[1]"  # a pattern to Orbax, unless it is given a LiteralPath
    save(directory, scores)
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.selected_step() == checkpoints.step_of("selected") == selected
        assert checkpoints.last_step() == checkpoints.step_of("last") == max(scores)
        shapes = jax.eval_shape(lambda: state(0))
        restored, data = checkpoints.restore(selected, jax.tree.map(_on_one_device, shapes))
    assert restored.params["w"].tolist() == [selected] * 2
    assert data == {"batches": selected}
    kept = {int(path.name) for path in directory.iterdir() if path.name.isdigit()}
    assert kept == {selected, max(scores)}


def test_a_damaged_checkpoint_or_one_of_other_shapes_is_a_sentence(tmp_path):
    save(tmp_path, {1: None})
    right = {"w": _on_one_device(jax.ShapeDtypeStruct((2,), jnp.float32))}
    other = {"w": _on_one_device(jax.ShapeDtypeStruct((3,), jnp.float32))}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_params(1, right)["w"].tolist() == [1, 1]
        with pytest.raises(InputError, match="checkpoint 1 in .* cannot be read"):
            checkpoints.restore_params(1, other)
    for path in (tmp_path / "1" / "params").rglob("manifest*"):
        path.unlink()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match="checkpoint 1 in .* cannot be read"):
            checkpoints.restore_params(1, right)


def _on_one_device(shape):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match="has no checkpoint; run stage 'train' first"):
            checkpoints.step_of("last")
