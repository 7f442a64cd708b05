"""Retrieval metrics against the published code's numbers and a NumPy twin that sorts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtbpr.retrieval.evaluation import metrics, ranking

CASES = [
    "random_20x30",
    "random_64x100",
    "cosine_two_captions_24x12",
    "ties_quantised_16x24",
    "ties_long_8x200",
    "all_equal_5x20",
    "perfect_6x18",
    "short_gallery_7x4",
]
PUBLISHED_AS = {
    "gallery_order": "stable_order",
    "pessimistic": "ties_positives_last",
    "optimistic": "ties_positives_first",
}
few_examples = settings(max_examples=40, deadline=None, database=None)


@pytest.fixture(scope="module")
def published(reference):
    """The reference cases by name: their published numbers, with the arrays beside them."""
    arrays = np.load(reference / "eval_metrics.npz")
    cases = {}
    for case in json.loads((reference / "eval_metrics.json").read_text()):
        names = ("similarity", "query_ids", "gallery_ids", "first_match_rank0", "ap_f64", "inp_f64")
        cases[case["case"]] = case | {name: arrays[f"{case['case']}/{name}"] for name in names}
    return cases


def score(case, ties):
    arrays = (case["similarity"], case["query_ids"], case["gallery_ids"])
    return metrics.similarity_metrics(*arrays, ties=ties)


def test_all_published_cases_are_here(published):
    assert sorted(published) == sorted(CASES)


@pytest.mark.parametrize("ties", sorted(PUBLISHED_AS))
@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_the_published_ones_under_every_tie_rule(published, name, ties):
    case = published[name]
    # Cases without ties have one order only, and its numbers under one name only.
    expected = case.get(PUBLISHED_AS[ties], case["stable_order"])
    found = score(case, ties)
    percent = {
        "r1": found.R1,
        "r5": found.R5,
        "r10": found.R10,
        "r_mean": found.r_mean,
        "mAP": found.mAP,
        "irra_mINP": found.mINP,
    }
    for key, value in percent.items():
        assert abs(100 * value - expected[key]) < 1e-4, key
    cmc = expected["irra_cmc"]
    np.testing.assert_allclose(100 * found.cmc[: len(cmc)], cmc, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_stable_order_equals_the_published_double_precision(published, name):
    case, found = published[name], score(published[name], "gallery_order")
    np.testing.assert_array_equal(found.first_match_rank - 1, case["first_match_rank0"])
    np.testing.assert_allclose(found.average_precision, case["ap_f64"], rtol=1e-12)
    np.testing.assert_allclose(found.inverse_negative_penalty, case["inp_f64"], rtol=1e-12)
    expected = case["stable_order_float64"]
    assert abs(100 * found.mAP - expected["mAP_over_queries_with_a_match"]) < 1e-9
    assert abs(100 * found.mINP - expected["mINP_over_queries_with_a_match"]) < 1e-9


# --- a twin that sorts -------------------------------------------------------------------------


def sorted_twin(similarity, query_ids, gallery_ids, ties):
    """First rank, AP and INP of every query, by sorting the gallery and walking down."""
    rows = []
    for scores, identity in zip(similarity, query_ids, strict=True):
        correct = gallery_ids == identity
        then = {"pessimistic": correct, "optimistic": ~correct, "gallery_order": 0 * correct}[ties]
        ranks = 1 + np.flatnonzero(correct[np.lexsort((then, -scores))])
        nth = np.arange(1, len(ranks) + 1)
        if len(ranks):
            rows.append((ranks[0], np.mean(nth / ranks), len(ranks) / ranks[-1]))
        else:
            rows.append((0, np.nan, np.nan))
    return np.array(rows).T


def assert_equals_twin(found, similarity, query_ids, gallery_ids, ties):
    first, ap, inp = sorted_twin(similarity, query_ids, gallery_ids, ties)
    np.testing.assert_array_equal(found.first_match_rank, first)
    np.testing.assert_allclose(found.average_precision, ap, rtol=1e-12)
    np.testing.assert_allclose(found.inverse_negative_penalty, inp, rtol=1e-12)
    assert found.queries_without_match == (first == 0).sum()
    np.testing.assert_allclose(found.mAP, np.nanmean(ap))
    np.testing.assert_allclose(found.mINP, np.nanmean(inp))
    hits = [np.mean((first > 0) & (first <= k)) for k in range(1, metrics.CMC_RANKS + 1)]
    np.testing.assert_allclose(found.cmc, hits)
    assert tuple(found.cmc[[0, 4, 9]]) == (found.R1, found.R5, found.R10)
    chance = np.mean([np.mean(gallery_ids == identity) for identity in query_ids])
    np.testing.assert_allclose(found.chance_R1, chance)


@st.composite
def scored_galleries(draw, distinct=False):
    """Similarities [Q, G] on a coarse grid (or all distinct), query ids with the first matched."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if distinct:
        similarity = np.stack([rng.permutation(gallery) for _ in range(queries)]) / gallery
    else:
        similarity = rng.integers(-2, 3, (queries, gallery)) / 4
    query_ids, gallery_ids = rng.integers(0, 5, queries), rng.integers(0, 5, gallery)
    query_ids[0] = gallery_ids[0]
    return similarity.astype(np.float32), query_ids, gallery_ids


@pytest.mark.parametrize("ties", metrics.TIES)
@few_examples
@given(arguments=scored_galleries())
def test_counting_equals_sorting(ties, arguments):
    found = metrics.similarity_metrics(*arguments, ties=ties)
    assert_equals_twin(found, *arguments, ties)


@few_examples
@given(arguments=scored_galleries())
def test_every_tie_rule_lies_between_optimistic_and_pessimistic(arguments):
    worst, stable, best = (metrics.similarity_metrics(*arguments, ties=t) for t in metrics.TIES)
    for name in ("R1", "R5", "R10", "mAP", "mINP"):
        assert getattr(worst, name) <= getattr(stable, name) + 1e-12
        assert getattr(stable, name) <= getattr(best, name) + 1e-12


@few_examples
@given(arguments=scored_galleries(distinct=True), seed=st.integers(0, 1000))
def test_the_order_of_a_gallery_without_ties_does_not_matter(arguments, seed):
    similarity, query_ids, gallery_ids = arguments
    order = np.random.default_rng(seed).permutation(len(gallery_ids))
    expected = metrics.similarity_metrics(*arguments, ties="gallery_order")
    for ties in metrics.TIES:
        found = metrics.similarity_metrics(
            similarity[:, order], query_ids, gallery_ids[order], ties=ties
        )
        assert found.summary() == expected.summary()


@few_examples
@given(arguments=scored_galleries())
def test_identities_are_only_names(arguments):
    similarity, query_ids, gallery_ids = arguments
    names = np.array([-7, 2**40, 3, 0, 12345678901])
    found = metrics.similarity_metrics(similarity, names[query_ids], names[gallery_ids])
    assert found.summary() == metrics.similarity_metrics(*arguments).summary()


# --- features, chunks, padding -----------------------------------------------------------------


def whole_number_features(queries, gallery, identities, seed=0):
    """Features whose inner products are exact, so that a sort on the host sees the same ties."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, (queries + gallery, 6)).astype(np.float32)
    ids = rng.integers(0, identities, queries + gallery)
    return features[:queries], features[queries:], ids[:queries], ids[queries:]


@pytest.mark.parametrize("ties", metrics.TIES)
@pytest.mark.parametrize("gallery", [1, ranking.TILE - 1, ranking.TILE + 1])
def test_padding_the_gallery_changes_nothing(gallery, ties):
    queries, images, query_ids, gallery_ids = whole_number_features(5, gallery, identities=40)
    query_ids[0] = gallery_ids[-1]
    found = metrics.retrieval_metrics(queries, images, query_ids, gallery_ids, ties=ties)
    assert_equals_twin(found, queries @ images.T, query_ids, gallery_ids, ties)


def test_the_chunk_size_changes_nothing():
    arguments = whole_number_features(100, 50, identities=9)
    whole = metrics.retrieval_metrics(*arguments)
    pieces = metrics.retrieval_metrics(*arguments, chunk_bytes=1)
    assert whole.summary() == pieces.summary()
    np.testing.assert_array_equal(whole.average_precision, pieces.average_precision)


def test_all_chunks_of_a_data_set_have_one_shape():
    shapes = set()

    def similarity(rows, height):
        shapes.add(height)
        return rows

    order = np.arange(1000)
    cut = [rows for rows, _ in ranking._chunks(similarity, order, 50, 300 * 4 * ranking.TILE)]
    assert shapes == {256}
    np.testing.assert_array_equal(np.concatenate(cut), order)


def test_identities_of_very_different_size_are_scored_together():
    queries, images, query_ids, gallery_ids = whole_number_features(40, 300, identities=60)
    gallery_ids[:200] = 7
    query_ids[[3, 30]] = 7
    found = metrics.retrieval_metrics(queries, images, query_ids, gallery_ids)
    assert_equals_twin(found, queries @ images.T, query_ids, gallery_ids, "pessimistic")


def test_a_model_that_gives_everything_one_score_gets_nothing():
    image = np.random.default_rng(0).standard_normal(64, dtype=np.float32)
    images, ids = np.tile(image, (5000, 1)), np.arange(5000) // 4
    found = metrics.retrieval_metrics(images[:40], images, ids[:40], ids)
    assert found.R1 == found.R10 == 0
    np.testing.assert_array_equal(found.first_match_rank, 4997)
    assert metrics.retrieval_metrics(images[:40], images, ids[:40], ids, ties="optimistic").R1 == 1


def test_zero_and_minus_zero_are_equal():
    similarity, ids = np.array([[0.0, -0.0, -0.0]], np.float32), np.array([1, 2, 1])
    ranks = {
        ties: metrics.similarity_metrics(similarity, [2], ids, ties=ties).first_match_rank[0]
        for ties in metrics.TIES
    }
    assert ranks == {"pessimistic": 3, "gallery_order": 2, "optimistic": 1}


@pytest.mark.parametrize("low", [-3e38, -1e39, np.finfo(np.float64).min])
def test_an_item_that_is_skipped_by_a_low_number_stays_in_the_gallery(low):
    similarity = np.full((3, 3), low)
    similarity[0, 1], similarity[1, 1], similarity[2, 0] = 0.5, 0.9, 0.3
    found = metrics.similarity_metrics(similarity, [0, 1, 2], [0, 1, 2])
    assert found.first_match_rank.tolist() == [3, 1, 3]


def test_one_query_and_one_image():
    found = metrics.retrieval_metrics([[1.0, 0.0]], [[0.0, 1.0]], [5], [5])
    assert found.summary() == {
        "R1": 1.0,
        "R5": 1.0,
        "R10": 1.0,
        "mAP": 1.0,
        "mINP": 1.0,
        "r_mean": 1.0,
        "chance_R1": 1.0,
        "queries": 1,
        "queries_without_match": 0,
        "gallery": 1,
        "identities": 1,
    }


def test_a_query_without_a_match_is_a_miss_and_left_out_of_the_means():
    similarity = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    found = metrics.similarity_metrics(similarity, [1, 3], [1, 2])
    assert (found.R1, found.mAP, found.mINP) == (0.5, 1.0, 1.0)
    assert (found.queries, found.queries_without_match, found.chance_R1) == (2, 1, 0.25)
    assert found.first_match_rank.tolist() == [1, 0]


def test_a_random_ranking_scores_what_chance_says():
    rng = np.random.default_rng(0)
    gallery_ids = np.repeat(np.arange(25), 4)
    query_ids = np.repeat(np.arange(25), 160)
    similarity = rng.random((len(query_ids), len(gallery_ids)), dtype=np.float32)
    found = metrics.similarity_metrics(similarity, query_ids, gallery_ids)
    assert found.chance_R1 == pytest.approx(0.04)
    assert abs(found.R1 - found.chance_R1) < 4 * np.sqrt(0.04 * 0.96 / len(query_ids))


# --- the best k --------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 50])
def test_top_k_equals_a_stable_sort(k):
    queries, images, _, _ = whole_number_features(70, 50, identities=5)
    similarity = queries @ images.T
    indices, scores = metrics.top_k(queries, images, k, chunk_bytes=1)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(similarity, order, axis=1))


def test_top_k_keeps_gallery_order_for_zero_and_minus_zero():
    images = np.array([[-1.0], [1.0], [-1.0]], np.float32)
    indices, _ = metrics.top_k(np.zeros((1, 1), np.float32), images, 3)
    assert indices.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_outside_the_gallery_is_an_error(k):
    with pytest.raises(ValueError, match=rf"k={k} must lie in 1\.\.3"):
        metrics.top_k(np.ones((1, 2)), np.ones((3, 2)), k)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error(bad):
    queries, images, query_ids, gallery_ids = whole_number_features(4, 6, identities=2)
    images[[2, 5], 1] = bad
    with pytest.raises(ValueError, match=r"gallery_features .* in 2 of 6 rows, first in row 2"):
        metrics.retrieval_metrics(queries, images, query_ids, gallery_ids)
    with pytest.raises(ValueError, match=r"similarity has NaN .* in 1 of 1 rows, first in row 0"):
        metrics.similarity_metrics([[0.0, bad]], [1], [1, 2])


def test_arguments_that_do_not_fit_are_errors():
    queries, images, query_ids, gallery_ids = whole_number_features(4, 6, identities=2)
    with pytest.raises(ValueError, match="6 numbers per row and gallery_features 5"):
        metrics.retrieval_metrics(queries, images[:, :5], query_ids, gallery_ids)
    with pytest.raises(ValueError, match=r"query_ids has shape \(3,\), but there are 4 rows"):
        metrics.retrieval_metrics(queries, images, query_ids[:3], gallery_ids)
    with pytest.raises(ValueError, match=r"gallery_features must be a matrix .* shape \(0, 6\)"):
        metrics.retrieval_metrics(queries, images[:0], query_ids, gallery_ids[:0])
    with pytest.raises(ValueError, match="ties='fair' is not a tie rule; use one of pessimistic"):
        metrics.retrieval_metrics(queries, images, query_ids, gallery_ids, ties="fair")


def test_a_gallery_of_other_people_only_is_an_error():
    queries, images, query_ids, gallery_ids = whole_number_features(4, 6, identities=2)
    with pytest.raises(ValueError, match="None of the 4 queries .* among the 6 of the gallery"):
        metrics.retrieval_metrics(queries, images, query_ids, gallery_ids + 10)
