"""LoRA: nothing changes at first, then only what was chosen, by low rank; scanned or not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval import evaluate, lora
from jaxtbpr.retrieval.model import Clip, init_params
from jaxtbpr.retrieval.transformer import TowerConfig
from tests.retrieval.test_model import CONFIG
from tests.retrieval.test_train_recipes import run

PATTERN = ".*/attn_[qv]/kernel"


def params_of(scan):
    tower = TowerConfig(width=16, layers=3, heads=2)
    config = dataclasses.replace(CONFIG, vision=tower, text=tower, scan=scan)
    return jax.jit(functools.partial(init_params, Clip(config)))(jax.random.key(0))


@pytest.mark.parametrize("scan", [False, True])
def test_the_change_is_of_low_rank_where_it_was_asked_for(scan):
    params = params_of(scan)
    change = lora.init(params, PATTERN, 2, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, lora.merge(params, change), params)
    change = jax.tree.map(lambda x: x + 0.1, change)
    merged = lora.merge(params, change)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, new, old: (jax.tree_util.keystr(path), new - old), merged, params
    )
    for name, delta in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
        if "attn_q" in name and "kernel" in name:
            assert (np.linalg.matrix_rank(delta, tol=1e-4) <= 2).all()
            assert jnp.abs(delta).max() > 1e-3
        elif "attn_v" not in name or "bias" in name:
            assert (delta == 0).all()


def test_an_expression_that_matches_no_kernel_is_refused():
    with pytest.raises(UserError, match="matches no kernel"):
        lora.init(params_of(False), "image/.*/bias", 2, jax.random.key(1))
    with pytest.raises(UserError, match=r"config.train.lora='\(' is no regular expression"):
        lora.init({}, "(", 2, jax.random.key(1))


def test_training_moves_the_chosen_kernels_alone_and_keeps_them_merged(tmp_path):
    first, _ = run(tmp_path / "first")
    second, _ = run(
        tmp_path / "second",
        **{"model.weights": str(first.dir("train")), "train.lora": PATTERN, "train.lora_rank": 2},
    )
    before = evaluate.load(first.dir("train"), batch_size=8, which=("selected",))
    after = evaluate.load(second.dir("train"), batch_size=8, which=("last",))
    one, other = before.params["selected"], after.params["last"]
    block, new = (p["image"]["transformer"]["block_0"] for p in (one, other))
    delta = np.asarray(new["attn_q"]["kernel"] - block["attn_q"]["kernel"])
    assert 0 < np.linalg.matrix_rank(delta, tol=1e-6) <= 2
    np.testing.assert_array_equal(new["attn_k"]["kernel"], block["attn_k"]["kernel"])
    np.testing.assert_array_equal(
        other["image"]["stem"]["proj"]["kernel"], one["image"]["stem"]["proj"]["kernel"]
    )
