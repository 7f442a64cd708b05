"""Whole short runs of each kind of training: losses with heads, weights of pairs, other starts."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from etils import epath

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval import evaluate, export, train
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.training import loop as train_loop
from tests.retrieval.runs import build_set, make_config
from tests.retrieval.test_weights import EVA, params_of

FULL = {
    "train.nitc": 1.0, "train.ritc": 1.0, "train.citc": 0.1, "train.simclr": 0.4,
    "train.multi_view": True, "train.soft_label_ratio": 0.5, "train.soft_labels": "softmax",
}  # fmt: skip
IRRA = {"train.nitc": 0.0, "train.sdm": 1.0, "train.identity": 1.0, "train.mlm": 1.0}
LORA = ".*/attn_[qv]/kernel"


def run(root, **values):
    """Trains on a new built set; returns the workdir and the rows of metrics."""
    workdir = build_set(root)
    config = make_config(**{"train.steps": 6, "train.mlm_layers": 1} | values)
    train.run(config, workdir)
    return workdir, config


def last_row(workdir):
    lines = (workdir.dir("train") / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (FULL, {"nitc", "ritc", "citc", "simclr"}),
        (IRRA, {"sdm", "identity", "mlm"}),
        ({"train.robust": 1.0, "train.robust_loss": "tal", "train.nitc": 0.5}, {"nitc", "robust"}),
    ],
    ids=["tbps-clip", "irra", "tal"],
)
@pytest.mark.parametrize("grad_cache_chunks", [1])
def test_published_recipes_train_and_are_evaluated(tmp_path, values, parts, grad_cache_chunks):
    workdir, config = run(tmp_path, **values, **{"train.grad_cache_chunks": grad_cache_chunks})
    row = last_row(workdir)
    assert parts <= row.keys()
    assert np.isfinite([row[name] for name in parts]).all()
    evaluate.run(config, workdir)  # the heads are no part of what is kept to embed


def test_a_run_with_heads_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole, _ = run(tmp_path / "a", **IRRA)
    parted = build_set(tmp_path / "b")
    for steps in (4, 6):
        config = make_config(**{"train.steps": 6, "train.mlm_layers": 1} | IRRA)
        config.train.checkpoint_every = 2
        if steps == 4:
            with pytest.raises(_Stop):
                _run_until(config, parted, steps)
        else:
            train.run(config, parted)
    one, other = (
        evaluate.load(w.dir("train"), batch_size=8, which=("last",)).params["last"]
        for w in (whole, parted)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


class _Stop(Exception):
    pass


def _run_until(config, workdir, steps):
    original = train_loop.finish_step

    def stop(trainer, n, state, checkpoints, log, preempted):
        original(trainer, n, state, checkpoints, log, preempted)
        if n == steps:
            checkpoints.wait()
            raise _Stop

    train_loop.finish_step = stop
    try:
        train.run(config, workdir)
    finally:
        train_loop.finish_step = original


@pytest.mark.parametrize("kind", ["mixture", "consensus"])
def test_pairs_are_weighed_after_each_epoch(tmp_path, kind):
    workdir, _ = run(
        tmp_path, **{"train.denoise": kind, "train.steps": 12, "data.caption_noise": 0.5}
    )
    found = sorted((workdir.dir("train") / "pair_losses").iterdir())
    assert [path.name for path in found] == ["epoch_0001.npz", "epoch_0002.npz"]
    arrays = np.load(io.BytesIO(found[-1].read_bytes()))
    assert arrays["weight"].shape == arrays["image_to_text"].shape == (40,)
    assert 0 <= arrays["weight"].min() < arrays["weight"].max() <= 1
    assert np.isfinite(arrays["image_to_text"]).all()


def test_losses_alone_leave_the_weights_at_one(tmp_path):
    workdir, _ = run(tmp_path, **{"train.save_pair_losses": True})
    path = workdir.dir("train") / "pair_losses" / "epoch_0001.npz"
    assert (np.load(io.BytesIO(path.read_bytes()))["weight"] == 1).all()


def test_small_losses_and_masked_channels_train(tmp_path):
    workdir, _ = run(tmp_path, **{"train.small_loss_fraction": 0.5, "train.channel_mask": 0.2})
    assert np.isfinite(last_row(workdir)["loss"])


def test_a_run_starts_from_a_run_and_from_what_it_exported(tmp_path, capfd):
    square = {"data.image_size": (16, 16), "model.activation": "quick_gelu"}
    first, _ = run(tmp_path / "first", **square)
    folder = tmp_path / "clip"
    export.export(
        str(first.dir("train")), str(folder), which="last", kind="huggingface", dtype="float32"
    )
    frozen = {"train.freeze": "(image|text)/.*", "train.steps": 1, **square}
    expected = evaluate.load(first.dir("train"), batch_size=8, which=("last",)).params["last"]
    for n, source in enumerate((first.dir("train"), folder)):
        workdir, _ = run(tmp_path / f"second_{n}", **frozen, **{"model.weights": str(source)})
        found = evaluate.load(workdir.dir("train"), batch_size=8, which=("last",)).params["last"]
        for tower in ("image", "text"):
            if n:  # of the last checkpoint, as this export is
                jax.tree.map(np.testing.assert_array_equal, found[tower], expected[tower])
    assert "train: starts from" in capfd.readouterr().err


def test_what_was_exported_is_evaluated_as_the_run_is(tmp_path):
    square = {"data.image_size": (16, 16), "model.activation": "quick_gelu"}
    workdir, _ = run(tmp_path / "run", **square)
    folder = tmp_path / "clip"
    export.export(
        str(workdir.dir("train")), str(folder), which="selected", kind="openai", dtype="float32"
    )
    one = RetrievalSet(workdir.dir("build") / "synthetic", "test")
    found = [
        evaluate.evaluate_set(
            evaluate.load(source, batch_size=8, which=("selected",)), one, examples=2
        )
        for source in (workdir.dir("train"), epath.Path(folder))
    ]
    assert found[0]["selected"]["mAP"] == pytest.approx(found[1]["selected"]["mAP"])
    assert found[0]["cmc"] == found[1]["cmc"]


def test_another_image_size_resamples_the_positions_of_a_run(tmp_path):
    first, _ = run(tmp_path / "first")
    workdir, _ = run(
        tmp_path / "second",
        **{"model.weights": str(first.dir("train")), "data.image_size": (48, 16)},
    )
    assert np.isfinite(last_row(workdir)["loss"])


def test_a_name_and_weights_do_not_go_together(tmp_path):
    with pytest.raises(
        UserError, match="config.model.name cannot be used with config.model.weights"
    ):
        run(tmp_path, **{"model.weights": "x", "model.name": "clip_vit_b16"})


def test_no_loss_between_image_and_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="no contrastive loss is enabled"):
        run(tmp_path, **{"train.nitc": 0.0, "train.identity": 1.0})


def test_a_published_eva_checkpoint_is_fine_tuned(tmp_path):
    """With scanned blocks, in half precision, a part of the batch at a time."""
    words = tokens.learn(["a woman in a red coat"] * 3, 300)
    config = dataclasses.replace(EVA, vocab_size=words.get_vocab_size())
    folder = tmp_path / "eva"
    folder.mkdir()
    weights.save_tensors(folder / "eva.safetensors", params_of(config), config, "eva")
    (folder / "model_config.json").write_text(json.dumps({"vision_cfg": {"rope": True}}))
    tokens.save(words, folder / "tokenizer.json")
    workdir, _ = run(
        tmp_path / "run",
        **{
            "model.weights": str(folder),
            "model.scan": True,
            "model.dtype": "bfloat16",
            "model.remat": "dots",
            "train.grad_cache_chunks": 1,
            "train.ritc": 1.0,
            "train.layer_decay": 0.8,
            "train.accumulation_steps": 2,
            "data.augment.policy": "two_of_six",
        },
    )
    assert np.isfinite(last_row(workdir)["loss"])
    again = evaluate.load(workdir.dir("train"), batch_size=8, which=("last",)).params["last"]
    assert again["image"]["transformer"]["blocks"]["attn_q"]["kernel"].shape == (1, 64, 64)
    export.export(
        str(workdir.dir("train")), str(tmp_path / "out"), which="last", kind="eva", dtype="float16"
    )
    found, params = weights.load(tmp_path / "out", scan=True)
    assert found.image_size == (32, 16)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), params, dict(again))
    assert found.vision.width == 64


def test_training_moves_the_chosen_kernels_alone_and_keeps_them_merged(tmp_path):
    first, _ = run(tmp_path / "first")
    second, _ = run(
        tmp_path / "second",
        **{"model.weights": str(first.dir("train")), "train.lora": LORA, "train.lora_rank": 2},
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


def test_an_expression_that_lora_cannot_use_is_refused_by_its_key(tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.lora: '.*/bias' matches no kernel"):
        run(tmp_path, **{"train.lora": ".*/bias"})
