"""tests/parity.py takes reference folders of other forms than ours, and finds what is wrong.

Each folder is a copy of a part of ours, altered as another may be.
"""

import json
import shutil

import numpy as np
import pytest

from tests import parity
from tests.oracles import clip_merges, losses, towers, trajectory


def wrong(path, module):
    """The quantities beyond their tolerance."""
    rows = parity.run(path, module)
    assert rows
    return [row[0] for row in rows if not row[1] <= row[2]]


def save(path, arrays, described=None):
    np.savez(path, **arrays)
    if described is not None:
        path.with_suffix(".json").write_text(json.dumps(described))
    return path


def test_a_variant_of_a_tower_has_texts_and_a_length_of_its_own(tmp_path, reference):
    for file in reference.glob("openai_clip_tiny*.[cos]*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "openai_clip_tiny.npz"
    published = np.load(reference / path.name)
    tokens = published["token_ids"][::-1, :50].copy()
    images = published["nonsquare/images"]
    config, params = towers.open_model(path, images.shape[2:], 50)
    assert config.text_length == 50
    found = towers._outputs(config, params, images.transpose(0, 2, 3, 1), tokens)
    kept = ("image_features", "text_features", "text_positional_embedding")
    arrays = {f"nonsquare/{key}": np.array(found[key]) for key in kept}
    arrays |= {"nonsquare/images": images, "nonsquare/token_ids": tokens}
    arrays["token_ids"] = published["token_ids"]
    assert wrong(save(path, arrays), "towers") == []
    arrays["nonsquare/token_ids"] = tokens[::-1]
    assert wrong(save(path, arrays), "towers") == ["nonsquare/text_features"]


def without_a_match(reference):
    """({name: array}, the case of the json) of queries of which the first has no match."""
    arrays = dict(np.load(reference / "eval_metrics.npz"))
    case = json.loads((reference / "eval_metrics.json").read_text())[0]
    name = case["case"]
    arrays[f"{name}/query_ids"][0] = 999
    arrays[f"{name}/first_match_rank0"][0] = -1
    ranks = arrays[f"{name}/first_match_rank0"]
    shares = {f"r{k}": 100 * float(np.mean((ranks >= 0) & (ranks < k))) for k in (1, 5)}
    means, others = {}, {}
    for key, array in (("mAP", "ap_f64"), ("mINP", "inp_f64")):
        arrays[f"{name}/{array}"][0] = np.nan
        means[f"{key}_over_queries_with_a_match"] = float(
            100 * np.nanmean(arrays[f"{name}/{array}"])
        )
        others[key] = "nan"
    failed = {"r10": "RuntimeError: k is out of range", "r_mean": "nan", "mAP": "nan"}
    failed |= {"r_mean": failed["r10"], "irra_mINP": float("nan"), "irra_cmc": failed["r10"]}
    case = {"case": name, "stable_order": shares | failed | means}
    return arrays, case | {"stable_order_float64": others | means}


def test_metrics_may_be_nan_as_a_string_or_an_error_s_text(tmp_path, reference):
    arrays, case = without_a_match(reference)
    path = tmp_path / "eval_metrics.npz"
    assert wrong(save(path, arrays, [case]), "metrics") == []
    only_error = case | {"ties_positives_last": "RuntimeError: no order"}
    assert wrong(save(path, arrays, [only_error]), "metrics") == []


@pytest.mark.parametrize(
    ("key", "value"), [("r1", 12.0), ("mAP_over_queries_with_a_match", 40.0), ("r5", "nan")]
)
def test_a_wrong_metric_fails_beside_those_that_the_original_has_not(
    tmp_path, reference, key, value
):
    arrays, case = without_a_match(reference)
    case["stable_order"][key] = value
    found = wrong(save(tmp_path / "eval_metrics.npz", arrays, [case]), "metrics")
    assert len(found) == 3  # of each rule for ties
    case = case | {"stable_order_float64": {"mAP": 1.0, "mINP": "nan"}}
    found = wrong(save(tmp_path / "eval_metrics.npz", arrays, [case]), "metrics")
    assert any("in double" in name for name in found)


@pytest.mark.parametrize("alone", [False, True])
def test_settings_of_losses_may_have_one_value(tmp_path, reference, alone):
    published = np.load(reference / "losses_syntbpr.npz")
    arrays = {
        "softlabel_types": published["softlabel_types"][1:],
        "alphas": published["alphas"][2:3],
        "ritc_eps": published["ritc_eps"][:1],
    }
    for key in published.files:
        if not key.startswith("B6/"):
            continue
        arrays[key] = published[key]
        if "nitc_" in key or "ritc_" in key:
            part = published[key][1:, 2:3] if "nitc_" in key else published[key][1:, 2:3, :1]
            arrays[key] = part.squeeze((0, 1) if "nitc_" in key else (0, 1, 2)) if alone else part
    if alone:
        arrays |= {key: arrays[key][0] for key in ("softlabel_types", "alphas", "ritc_eps")}
    path = tmp_path / "losses_syntbpr.npz"
    assert wrong(save(path, arrays), "losses") == []
    arrays["B6/ritc_loss"] = arrays["B6/ritc_loss"] + np.float32(1e-3)
    assert wrong(save(path, arrays), "losses") == ["B6/ritc[0, 0, 0]"]


def test_an_axis_that_does_not_matter_may_have_length_1():
    array = np.arange(4.0)[None, :]
    assert losses._result(array, ((1, 2), (3, 4))) == 3
    assert losses._result(array[0], ((0, 1), (2, 4))) == 2
    with pytest.raises(ValueError, match="zip"):
        losses._result(array[0], ((1, 2), (2, 4)))


def test_rates_may_all_be_0(tmp_path):
    case = {"case": 0, "lr": 0.0, "lr_start": 0.0, "lr_end": 0.0, "softlabel_ratio": 0.0}
    case |= {"epoch": 2, "epoch_warmup": 1, "niter_per_ep": 3}
    arrays = {"case0_lr": np.zeros(6), "case0_alpha": np.zeros(6)}
    path = tmp_path / "lr_schedule.npz"
    assert wrong(save(path, arrays, [case]), "schedule") == []
    arrays["case0_lr"][4] = 1e-9
    assert "case 0: lr, float64" in wrong(save(path, arrays, [case]), "schedule")


def test_id_0_is_a_token_where_texts_are_counted(tmp_path):
    """ "!" within a run of signs has id 0, which also pads."""
    captions = [{"caption": "!$ a man"}, {"caption": "a man " * 60}]
    tokens = clip_merges.clip_tokenizer().encode("!$", add_special_tokens=False).ids
    assert tokens[0] == 0
    rows = np.zeros((2, 77), np.int32)
    first = [49406, *tokens, 320, 786, 49407]
    rows[0, : len(first)] = first
    rows[1] = [49406, *[320, 786] * 37, 320, 49407]
    arrays = {"token_ids_raw": rows, "argmax_raw": np.array([len(first) - 1, 76])}
    arrays |= {"token_lengths_raw": np.array([len(first), 77])}
    arrays |= {"full_lengths_raw": np.array([len(first), 122])}
    path = tmp_path / "text.npz"
    assert wrong(save(path, arrays, captions), "text") == []
    arrays["token_lengths_raw"][0] -= 1
    assert wrong(save(path, arrays, captions), "text") == ["token_lengths_raw"]


def test_losses_may_be_recorded_after_their_ratios_and_gradients_be_missing(tmp_path, reference):
    for name in ("train_trajectory.json", "train_trajectory.npz"):
        shutil.copy(reference / name, tmp_path)
    shutil.copy(reference / "eva_clip_tiny.weights.safetensors", tmp_path)
    path = tmp_path / "train_trajectory.npz"
    described = json.loads(path.with_suffix(".json").read_text()) | {"steps": 1}
    described["config"]["experiment"] |= {"nitc_ratio": 0.5, "ritc_ratio": 2.0}
    arrays = {key: x for key, x in np.load(path).items() if not key.startswith("step")}
    arrays["nitc_loss"] = 0.5 * arrays["nitc_loss"]
    arrays["ritc_loss"] = 2.0 * arrays["ritc_loss"]
    arrays["loss"] = arrays["nitc_loss"] + arrays["ritc_loss"]
    rows = trajectory.check(save(path, arrays, described))
    errors = {name: (error, tolerance) for name, error, tolerance in rows}
    # Its norm is not known for these ratios.
    assert set(errors) == {f"{x}, step 1" for x in ("nitc_loss", "ritc_loss", "loss", "grad_norm")}
    assert [name for name, (error, most) in errors.items() if not error <= most] == [
        "grad_norm, step 1"
    ]


def test_which_way_losses_are_recorded_says_their_sum():
    parts = {"nitc_loss": np.array([3.0]), "ritc_loss": np.array([1.0])}
    experiment = {"nitc_ratio": 0.5, "ritc_ratio": 2.0}
    before = trajectory._recorded(experiment, parts | {"loss": np.array([3.5])})
    assert before["nitc"] == ("nitc_loss", 1.0)
    after = trajectory._recorded(experiment, parts | {"loss": np.array([4.0])})
    assert after["ritc"] == ("ritc_loss", 2.0)
    off = experiment | {"ritc": False}
    assert "ritc" not in trajectory._recorded(off, parts | {"loss": np.array([3.0])})
