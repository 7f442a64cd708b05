"""Scores of pairs and measures of sets, against their formulas in NumPy."""

import jax
import numpy as np
import pytest
import scipy.linalg
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core import mesh as meshes
from jaxtbpr.render import png, render
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.saved import open_saved


def features(seed, count, width=5, shift=0.0):
    rows = np.random.default_rng(seed).normal(size=(count, width)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clip_score_in_numpy(images, texts):
    """CLIPScore (arXiv:2104.08718, equation 1), averaged over the pairs."""
    scores = [2.5 * max(float(np.dot(v, c)), 0.0) for v, c in zip(images, texts, strict=True)]
    return np.mean(scores)


def cmmd_in_numpy(x, y):
    """CMMD (arXiv:2401.09603, section 4): 1000 times the squared MMD, sigma 10."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a, b):
        return np.mean([np.exp(-np.sum((p - q) ** 2) / (2 * 10.0**2)) for p in a for q in b])

    return 1000.0 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


@pytest.mark.parametrize(("count", "shift"), [(40, 0.0), (40, 0.7), (4, 0.2)])
def test_fid_is_the_formula(count, shift):
    x, y = features(0, 30), features(1, count, shift=shift)
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(one @ other)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(one + other - 2 * root.real)
    np.testing.assert_allclose(scoring.frechet_distance(x, y), expected, rtol=1e-4, atol=1e-6)
    assert abs(scoring.frechet_distance(x, x[::-1])) < 1e-6


@pytest.mark.parametrize("count", [1, 7])
def test_clip_score_is_the_formula(count):
    images, texts = features(0, count), features(1, count)
    found = float(scoring.clip_score(images, texts))
    np.testing.assert_allclose(found, clip_score_in_numpy(images, texts), rtol=1e-6)


def test_clip_score_counts_opposites_as_nothing():
    images = features(0, 4)
    assert float(scoring.clip_score(images, -images)) == 0
    np.testing.assert_allclose(float(scoring.clip_score(images, images)), 2.5, rtol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.05, 3.0])
def test_cmmd_is_the_formula(shift, monkeypatch):
    monkeypatch.setattr(scoring, "_KERNEL_ROWS", 8)  # so that there is a padded piece
    x, y = features(0, 21), features(1, 13, shift=shift)
    np.testing.assert_allclose(scoring.cmmd(x, y), cmmd_in_numpy(x, y), rtol=1e-4, atol=1e-6)


def test_cmmd_of_a_set_from_itself_is_nothing_and_grows_with_the_distance():
    x = features(0, 40)
    far = [scoring.cmmd(x, features(1, 40, shift=shift)) for shift in (0.0, 0.5, 3.0)]
    assert abs(scoring.cmmd(x, x[::-1])) < 1e-6
    assert far == sorted(far)
    assert far[0] > 0


def test_feature_variance_is_the_mean_squared_distance_from_the_mean():
    x = features(0, 30)
    distances = np.linalg.norm(x - x.mean(axis=0), axis=1)
    np.testing.assert_allclose(scoring.feature_variance(x), np.mean(distances**2), rtol=1e-5)
    assert scoring.feature_variance(np.repeat(x[:1], 5, axis=0)) == 0


@given(arrays.arrays(np.float32, st.integers(0, 30), elements=st.floats(-1, 1, width=32)),
       st.floats(0, 1))  # fmt: skip
@settings(max_examples=50)
def test_the_worst_are_the_lowest_share(scores, share):
    chosen = scoring.worst(scores, share)
    assert chosen.sum() == int(share * len(scores))
    if chosen.any() and not chosen.all():
        assert scores[chosen].max() <= scores[~chosen].min()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("a man, with a red coat and black shoes.", ["a man", "a red coat", "black shoes"]),
        ("one", ["one"]),
        ("", [""]),
        ("a sandy withered hand", ["a sandy withered hand"]),
    ],
)
def test_clauses_end_at_commas_and_and_with(text, clauses):
    assert scoring.split_clauses(text) == clauses


# --- with the embedded model ---------------------------------------------------------------------

SAID = "a person with a {bag}, wearing a {upper_colour} top and {lower_colour} bottoms"


@pytest.fixture(scope="module")
def people():
    """Encoded images of drawn people, and a text of each."""
    drawn = []
    for number in range(12):
        rng = seeds.rng(0, "scoring test", number)
        looks = attributes.sample_person(rng) | attributes.sample_scene(rng)
        pixels = render(looks, seed=0, record_id=f"{number}", height=128, width=64)
        drawn.append((png.encode(pixels), SAID.format(**looks)))
    return [image for image, _ in drawn], [text for _, text in drawn]


@pytest.fixture(scope="module")
def scorer():
    return scoring.Scorer(open_saved("tiny-clip"), batch_size=8)


def test_scores_do_not_depend_on_the_batch_nor_on_the_place_in_it(scorer, people):
    images, texts = people
    whole = scorer.images(images)
    np.testing.assert_allclose(scorer.images(images[5:7]), whole[5:7], atol=1e-6)
    other = scoring.Scorer(open_saved("tiny-clip"), batch_size=16)
    np.testing.assert_allclose(other.images(images), whole, atol=1e-5)
    some = scorer.texts(texts)
    np.testing.assert_allclose(scorer.texts(texts[7:]), some[7:], atol=1e-6)


def test_a_text_fits_its_own_image_better_than_another(scorer, people):
    images, texts = people
    found = scorer.images(images)
    own = scorer.cosines(found, texts, clauses=True)
    other = scorer.cosines(np.roll(found, 1, axis=0), texts, clauses=True)
    assert (own > other).mean() > 0.8


def rows_embedded(scorer, monkeypatch, tower):
    """Lets a tower answer with a row's number in all, in place of features; returns the rows."""
    seen = []

    def count(params, rows):
        seen.extend(np.asarray(rows))
        return np.repeat(np.arange(len(seen) - len(rows), len(seen))[:, None], scorer.width, 1)

    monkeypatch.setattr(scorer._embedder, tower, count)
    return seen


def test_a_text_that_occurs_often_is_embedded_once(scorer, people, monkeypatch):
    seen = rows_embedded(scorer, monkeypatch, "_text")
    texts = people[1][:3]
    assert scorer.texts([*texts, texts[2], texts[0]])[:, 0].tolist() == [0, 1, 2, 2, 0]
    assert sum(tokens.any() for tokens in seen) == 3


def test_a_cpu_computes_few_rows_at_a_time_whatever_the_batch(people, monkeypatch):
    scorer = scoring.Scorer(
        open_saved("tiny-clip"), 128, meshes.make_mesh(devices=jax.devices()[:1])
    )
    seen = rows_embedded(scorer, monkeypatch, "_image")
    scorer.images(people[0])
    assert len(seen) == 32


def test_nothing_has_no_features(scorer):
    assert scorer.images([]).shape == scorer.texts([]).shape == (0, scorer.width)


def test_a_model_is_told_by_its_files(tmp_path):
    folder = epath.Path(scoring.weights.open_checkpoint("tiny-clip").folder)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert scoring.fingerprint(tmp_path) == scoring.fingerprint("tiny-clip")
    # Weights, sizes, words, and how images are prepared.
    for name in ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"):
        whole, before = (tmp_path / name).read_bytes(), scoring.fingerprint(tmp_path)
        change = whole[:-1] + b"\x01" if name.endswith("safetensors") else whole + b" "
        (tmp_path / name).write_bytes(change)
        assert scoring.fingerprint(tmp_path) != before
    before = scoring.fingerprint(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    assert scoring.fingerprint(tmp_path) != before
