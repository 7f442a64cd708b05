"""Training batches in every order and sharing, and evaluation batches with their padding."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from jaxtbpr.core import images, options
from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, loader, pairs, transforms
from jaxtbpr.datasets.resizing import MODES, Resize
from jaxtbpr.datasets.source import ImageSource, RetrievalSet
from tests.datasets.folders import make_folder
from tests.datasets.sets import (
    closing_all,
    commit_manifest,
    make_config,
    make_workdir,
    write_manifest,
)
from tests.datasets.test_build import REPOSITORY

AUGMENT = options.default_config(transforms.AUGMENT_OPTIONS).to_dict()
STRONG = AUGMENT | {"flip": 0.5, "crop": 1, "jitter": 1, "erase": 1, "word_deletion": 0.2}
PLAIN = {"batch_size": 4, "seed": 0, "image_size": (24, 12), "text_length": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets: "real" with 15 train images of two captions, "other" with 10 of one."""
    root = tmp_path_factory.mktemp("sets")
    real = make_folder(root, "cuhk_pedes", people=5, images=3)
    other = make_folder(root, "icfg_pedes", people=5)
    config = make_config(folders={"real": str(real.path), "other": str(other.path)}, val_fraction=0)
    build.run(config, make_workdir(root / "run"))
    return root / "run" / "build"


@pytest.fixture(scope="module")
def real(folder):
    return RetrievalSet(folder / "real", "train")


@pytest.fixture(scope="module")
def both(folder, real):
    return [real, RetrievalSet(folder / "other", "train")]


@pytest.fixture(scope="module")
def words(both):
    return tokens.learn([c for one in both for captions in one.captions for c in captions], 400)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def pairs_of(batches):
    """Returns the (image, caption) pairs of `batches`, as sortable tuples."""
    return [
        (int(index), *row.tolist())
        for batch in batches
        for index, row in zip(batch["index"], batch["tokens"], strict=True)
    ]


def test_a_batch_has_the_promised_arrays(real, words):
    batch = next(loader.train_loader([real], words, **PLAIN))
    shapes = {key: (str(array.dtype), array.shape) for key, array in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, 24, 12, 3)),
        "tokens": ("int32", (4, 32)),
        "identity": ("int32", (4,)),
        "index": ("int64", (4,)),
        "pair": ("int64", (4,)),
    }


def test_image_caption_and_identity_belong_together(real, words):
    for batch in take(loader.train_loader([real], words, **PLAIN), 7):
        for k, i in enumerate(batch["index"]):
            image = transforms.decode_image(real.image_bytes(i), (24, 12))
            np.testing.assert_array_equal(batch["image"][k], image)
            cleaned = [tokens.clean_caption(caption) for caption in real.captions[i]]
            rows = tokens.encode(words, cleaned, 32).tolist()
            assert batch["tokens"][k].tolist() in rows
            assert batch["identity"][k] == real.identities[i]


def test_an_epoch_has_every_pair_once_but_the_last_partial_batch(real, words):
    batches = loader.train_loader([real], words, **PLAIN)
    steps = loader.steps_per_epoch([real], 4)
    assert steps == 30 // 4
    everything = loader.train_loader([real], words, **PLAIN | {"batch_size": 30})
    whole = set(pairs_of(take(everything, 1)))
    assert len(whole) == 30
    for _ in range(3):
        epoch = pairs_of(take(batches, steps))
        assert len(epoch) == len(set(epoch)) == 28
        assert set(epoch) < whole


def test_every_epoch_and_seed_has_an_order_of_its_own(real, words):
    batches = loader.train_loader([real], words, **PLAIN | {"batch_size": 30})
    orders = [tuple(pairs_of([batch])) for batch in take(batches, 3)]
    other = loader.train_loader([real], words, **PLAIN | {"batch_size": 30, "seed": 1})
    # Seeds that follow each other must not be epochs that follow each other.
    orders += [tuple(pairs_of([batch])) for batch in take(other, 3)]
    assert len(set(orders)) == 6


def test_each_epoch_changes_an_image_in_another_way(real, words):
    setup = PLAIN | {"batch_size": 30, "augment": STRONG}
    first, second = take(loader.train_loader([real], words, **setup), 2)
    rows = [np.argsort(batch["index"], kind="stable") for batch in (first, second)]
    changed = (first["image"][rows[0]] != second["image"][rows[1]]).any((1, 2, 3))
    assert changed.mean() > 0.9


def test_two_captions_of_an_image_get_different_changes(real, words):
    batch = next(
        loader.train_loader([real], words, **PLAIN | {"batch_size": 30, "augment": STRONG})
    )
    for i in range(len(real)):
        one, other = batch["image"][batch["index"] == i]
        assert (one != other).any()


def test_sets_are_joined_with_identities_apart(both, words):
    batch = next(loader.train_loader(both, words, **PLAIN | {"batch_size": 40}))
    assert sorted(set(batch["index"])) == list(range(25))
    offset = int(both[0].identities.max()) + 1
    for k, i in enumerate(batch["index"]):
        which = both[0] if i < 15 else both[1]
        own = i if i < 15 else i - 15
        expected = which.identities[own] + (0 if i < 15 else offset)
        assert batch["identity"][k] == expected
        image = transforms.decode_image(which.image_bytes(own), (24, 12))
        np.testing.assert_array_equal(batch["image"][k], image)


def test_sets_have_the_share_of_their_weights_and_begin_anew(both, words):
    weights = {"real": 1.0, "other": 3.0}
    batches = loader.train_loader(both, words, **PLAIN, set_weights=weights)
    found = np.concatenate([batch["pair"] for batch in take(batches, 40)])
    batches.close()
    of_other = found[found >= 30]
    assert 0.74 < len(of_other) / len(found) < 0.76
    _, counts = np.unique(of_other, return_counts=True)
    assert len(counts) == 10
    assert counts.max() - counts.min() <= 1
    again = loader.train_loader(both, words, **PLAIN, set_weights=weights)
    again.set_state({"batches": 7, "recipe": again.pairs.recipe()})
    np.testing.assert_array_equal(next(again)["pair"], found[28:32])
    again.close()
    # What comes again before the epoch is over is changed in another way each time.
    changed = loader.train_loader(both, words, **PLAIN | {"augment": STRONG}, set_weights=weights)
    seen = [(b["pair"], b["image"]) for b in take(changed, changed.pairs.steps_per_epoch)]
    changed.close()
    pairs_seen, images = map(np.concatenate, zip(*seen, strict=True))
    often = np.bincount(pairs_seen).argmax()
    visits = images[pairs_seen == often]
    assert len(visits) > 1
    assert len(np.unique(visits, axis=0)) == len(visits)
    with pytest.raises(InputError, match="must give each of the train sets real, other a weight"):
        loader.train_loader(both, words, **PLAIN, set_weights={"real": 1.0})


def test_a_batch_has_the_views_that_are_asked_for(real, words):
    views = loader.Views(second=True, strong=True, words=True)
    batches = loader.train_loader([real], words, **PLAIN, augment=STRONG, views=views)
    batch = next(batches)
    batches.close()
    pictures = [batch[name] for name in ("image", "second", "view_1", "view_2")]
    assert all(x.shape == (4, 24, 12, 3) and x.dtype == np.uint8 for x in pictures)
    assert all((a != b).any() for a, b in itertools.combinations(pictures, 2))
    assert batch["masked"].shape == batch["labels"].shape == (4, 32)


def test_more_captions_are_others_of_the_same_image(both, words):
    views = loader.Views(captions=3)
    batches = loader.train_loader(both, words, **PLAIN, augment=STRONG, views=views)
    again = loader.train_loader(both, words, **PLAIN, augment=STRONG, views=views)
    plain = loader.train_loader(both, words, **PLAIN, views=views)
    with closing_all(batches, again, plain):
        for batch, same in zip(take(batches, 6), take(again, 6), strict=True):
            np.testing.assert_array_equal(batch["more"], same["more"])
        table = plain.pairs
        for batch in take(plain, 6):
            assert batch["more"].shape == (4, 2, 32)
            assert batch["more"].dtype == np.int32
            for pair, more in zip(batch["pair"], batch["more"], strict=True):
                image = table.image_of_pair[pair]
                others = set(np.flatnonzero(table.image_of_pair == image)) - {pair} or {pair}
                found = {tuple(row) for row in more}
                assert found == {tuple(table.tokens[other]) for other in others}


def test_facts_of_a_batch_are_those_of_its_image_and_captions(tmp_path):
    records = write_manifest(tmp_path, people=8)
    for n, record in enumerate(records):
        colour, bag = ("red", "blue")[n % 2], ("backpack", "handbag")[n // 2 % 2]
        said = [{"upper_colour": colour}, {"bag": bag}][: len(record["captions"])]
        record["facts"] = {"shown": {"upper_colour": colour, "bag": bag}, "mentioned": said}
    commit_manifest(tmp_path, records)
    build.run(make_config(), make_workdir(tmp_path))
    one = RetrievalSet(tmp_path / "build" / "synthetic", "train")
    assert one.record(0)["provenance"]["facts"] == one.facts[0]
    words = tokens.learn([c for captions in one.captions for c in captions], 300)
    views = loader.Views(captions=2, facts=True)
    batches = loader.train_loader([one], words, **PLAIN, views=views)
    with closing_all(batches):
        assert batches.slots == 2
        for batch in take(batches, 5):
            assert batch["shown"].shape == (4, 3)
            assert batch["mentioned"].shape == (4, 2, 3)
            for row in range(4):
                shown, said = batch["shown"][row], batch["mentioned"][row]
                assert shown[0] == batch["identity"][row] == said[0, 0] == said[1, 0]
                first = batch["pair"][row] % 2  # of the two captions, what the own one says
                assert list(said[0, 1:]) == [shown[1 + s] if s != first else -1 for s in (0, 1)]
                assert list(said[1, 1:]) == [shown[1 + s] if s == first else -1 for s in (0, 1)]


def test_mixed_images_have_the_words_of_both(real, words):
    plain = next(loader.train_loader([real], words, **PLAIN))
    mixed = next(
        loader.train_loader([real], words, **PLAIN, augment=transforms.NO_AUGMENT | {"mix": 0.25})
    )
    np.testing.assert_array_equal(plain["pair"], mixed["pair"])
    both = plain["image"][:2].astype(int).sum(axis=0) // 2
    np.testing.assert_array_equal(mixed["image"][0], both)
    for key in ("image", "tokens", "identity"):
        np.testing.assert_array_equal(mixed[key][1:], plain[key][1:])
    ends = [int(row.argmax()) for row in plain["tokens"]]
    own = np.concatenate([plain["tokens"][n][1 : ends[n]] for n in (0, 1)])
    np.testing.assert_array_equal(mixed["tokens"][0][1:][: len(own)][:30], own[:30])


def test_masked_words_are_those_that_the_labels_have(words):
    row = tokens.encode(words, ["a woman in a red coat with a black backpack"], 32)[0]
    rng = np.random.default_rng(0)
    chosen, masked_out, kept = 0, 0, 0
    for _ in range(400):
        masked, labels = pairs.mask_words(row, rng, words)
        at = labels != -100
        np.testing.assert_array_equal(labels[at], row[at])
        np.testing.assert_array_equal(masked[~at], row[~at])
        assert masked.argmax() == row.argmax()  # the end token stays what is read out
        chosen += at.sum()
        masked_out += (masked[at] == tokens.mask_id(words)).sum()
        kept += (masked[at] == row[at]).sum()
    own = (row > 0).sum() - 2
    assert 0.12 < chosen / (400 * own) < 0.18
    assert 0.74 < masked_out / chosen < 0.86
    assert 0.05 < kept / chosen < 0.16


@pytest.mark.parametrize("count", [2, 4])
def test_the_processes_share_out_each_batch_in_its_order(real, words, count):
    setup = PLAIN | {"augment": STRONG}
    whole = take(loader.train_loader([real], words, **setup), 9)
    shares = [
        take(loader.train_loader([real], words, **setup, process_index=i, process_count=count), 9)
        for i in range(count)
    ]
    joined = [
        {key: np.concatenate([share[key] for share in step]) for key in step[0]}
        for step in zip(*shares, strict=True)
    ]
    assert_same(joined, whole)


def test_worker_processes_change_nothing_and_a_checkpoint_goes_on_exactly(real, words):
    setup = PLAIN | {"augment": STRONG}
    expected = take(loader.train_loader([real], words, **setup), 20)
    two = loader.train_loader([real], words, **setup, workers=2)
    with closing_all(two):
        assert_same(take(two, 10), expected[:10])
        state = json.loads(json.dumps(two.get_state()))
        # In the middle of the second epoch; the saving loader must not be disturbed.
        assert_same(take(two, 3), expected[10:13])
        again = loader.train_loader([real], words, **setup)
        again.set_state(state)
        assert again.get_state() == state
        assert_same(take(again, 10), expected[10:])
        two.set_state(loader.train_loader([real], words, **setup).get_state())
        assert_same(take(two, 3), expected[:3])


@pytest.mark.parametrize("given", [0, 1, 6, 7, 8, 20])
def test_a_restored_loader_gives_what_the_first_would_have(real, words, given):
    setup = PLAIN | {"augment": STRONG}
    first = loader.train_loader([real], words, **setup)
    take(first, given)
    second = loader.train_loader([real], words, **setup, threads=1, cache_mb=0)
    second.set_state(first.get_state())
    assert_same(take(second, 9), take(first, 9))


def test_a_loader_can_be_set_back(real, words):
    batches = loader.train_loader([real], words, **PLAIN)
    state = batches.get_state()
    first = take(batches, 5)
    batches.set_state(state)
    assert_same(take(batches, 5), first)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 5}])
def test_a_checkpoint_of_another_order_is_refused(real, both, words, change):
    state = loader.train_loader([real], words, **PLAIN | change).get_state()
    ours = loader.train_loader([real], words, **PLAIN)
    with pytest.raises(InputError, match=r"data order was \{.*this run's is \{.*same data, seed"):
        ours.set_state(state)
    with pytest.raises(InputError, match='"pairs": 40.*"pairs": 30'):
        ours.set_state(loader.train_loader(both, words, **PLAIN).get_state())


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_cache_changes_nothing(real, words, cache_mb):
    setup = PLAIN | {"augment": STRONG}
    plain = take(loader.train_loader([real], words, **setup, cache_mb=64), 15)
    assert_same(take(loader.train_loader([real], words, **setup, cache_mb=cache_mb), 15), plain)


def test_an_image_that_does_not_decode_is_named_with_its_set(real, monkeypatch):
    monkeypatch.setattr(type(real.images), "__getitem__", lambda *_: b"no image")
    told = rf"image \d+ of {real.directory}, split 'train', is not in a known image format"
    with pytest.raises(images.ImageError, match=told):
        pairs.Images([real.images], 0)[2]
    with pytest.raises(images.ImageError, match=told):
        next(loader.image_batches(real, image_size=(8, 4), batch_size=4))


def test_the_cache_keeps_to_its_size(real, monkeypatch):
    room = 3 * 4 * 24 * 12
    images_of_set = ImageSource(real.directory, real.split)  # no other loader's threads
    opened, read = [], images_of_set.open
    monkeypatch.setattr(images_of_set, "open", lambda i: opened.append(i) or read(i))
    kept = pairs.Images([images_of_set], room + 5)
    for i in [*range(5), *range(5)]:
        assert kept[i].size == (12, 24)
    assert len(opened) == 5 + 2


def test_words_are_deleted_only_where_asked(real, words):
    everything = {"batch_size": 30}
    whole = next(loader.train_loader([real], words, **PLAIN | everything))
    fewer = next(
        loader.train_loader(
            [real],
            words,
            **PLAIN | everything,
            augment=transforms.NO_AUGMENT | {"word_deletion": 0.3},
        )
    )
    np.testing.assert_array_equal(whole["index"], fewer["index"])
    assert (fewer["tokens"] > 0).sum() < 0.85 * (whole["tokens"] > 0).sum()
    ends = fewer["tokens"].argmax(1)
    assert (fewer["tokens"][np.arange(30), ends] == tokens.special_ids(words)[1]).all()


def test_what_goes_to_a_worker_is_small(real, words):
    batches = loader.train_loader([real], words, **PLAIN)
    next(batches)
    source = real.images
    assert source[0] == pickle.loads(pickle.dumps(source))[0]
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize("batch_size", [1, 4, 15, 16])
def test_every_image_is_evaluated_once_and_padding_is_marked(real, batch_size):
    batches = list(loader.image_batches(real, image_size=(24, 12), batch_size=batch_size))
    assert len(batches) == -(-15 // batch_size)
    assert {batch["image"].shape for batch in batches} == {(batch_size, 24, 12, 3)}
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    mask = joined["mask"]
    assert mask.dtype == bool
    assert mask.sum() == 15
    np.testing.assert_array_equal(joined["index"][mask], np.arange(15))
    np.testing.assert_array_equal(joined["identity"][mask], real.identities)
    for i in range(15):
        image = transforms.decode_image(real.image_bytes(i), (24, 12))
        np.testing.assert_array_equal(joined["image"][i], image)
    assert (joined["index"][~mask] == -1).all()
    assert (joined["identity"][~mask] == -1).all()
    assert (joined["image"][~mask] == 0).all()
    assert (joined["index"].dtype, joined["identity"].dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 31])
def test_every_caption_is_evaluated_once_and_padding_is_marked(real, words, batch_size):
    batches = list(loader.caption_batches(real, words, text_length=20, batch_size=batch_size))
    assert {batch["tokens"].shape for batch in batches} == {(batch_size, 20)}
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    mask = joined["mask"]
    assert mask.sum() == 30
    np.testing.assert_array_equal(joined["index"][mask], np.repeat(np.arange(15), 2))
    np.testing.assert_array_equal(joined["identity"][mask], np.repeat(real.identities, 2))
    cleaned = [tokens.clean_caption(c) for captions in real.captions for c in captions]
    np.testing.assert_array_equal(joined["tokens"][mask], tokens.encode(words, cleaned, 20))
    assert (joined["tokens"][~mask] == 0).all()
    assert (joined["index"][~mask] == -1).all()


def test_evaluation_images_use_the_filter_that_is_asked_for(real):
    setup = {"image_size": (40, 30), "batch_size": 15}
    for resample in transforms.FILTERS:
        batch = next(loader.image_batches(real, **setup, resample=resample))
        expected = transforms.decode_image(real.image_bytes(3), (40, 30), resample)
        np.testing.assert_array_equal(batch["image"][3], expected)


@pytest.mark.parametrize("mode", MODES)
def test_training_and_evaluation_images_are_resized_as_is_asked_for(real, words, mode):
    how = {"resample": "bilinear", "resize": Resize(mode)}
    evaluated = next(loader.image_batches(real, image_size=(24, 24), batch_size=15, **how))
    trained = next(loader.train_loader([real], words, **PLAIN | how | {"image_size": (24, 24)}))
    for batch in (evaluated, trained):
        for pixels, i in zip(batch["image"], batch["index"], strict=True):
            expected = transforms.decode_image(real.image_bytes(i), (24, 24), *how.values())
            np.testing.assert_array_equal(pixels, expected)


def test_every_view_is_resized_as_is_asked_for(real, words):
    setup = PLAIN | {"image_size": (24, 24), "resize": Resize("longest")}
    views = loader.Views(second=True, strong=True)
    batch = next(loader.train_loader([real], words, **setup, views=views))
    for name in ("image", "second", "view_1", "view_2"):  # tall ones: the sides are of one colour
        assert np.ptp(batch[name][:, :, 0], axis=1).max() <= 1


def test_a_batch_larger_than_the_set_is_an_error_with_both_numbers(real, words):
    with pytest.raises(InputError, match=r"batch of 31 is larger than the 30 .* of real/train"):
        loader.train_loader([real], words, **PLAIN | {"batch_size": 31})
    with pytest.raises(InputError, match=r"batch of 31 is larger than the 30"):
        loader.steps_per_epoch([real], 31)


def test_a_batch_that_cannot_be_shared_out_is_an_error(real, words):
    with pytest.raises(InputError, match=r"batch of 4 cannot be divided evenly among 3 processes"):
        loader.train_loader([real], words, **PLAIN, process_count=3)


def test_the_options_fit_the_loader(real, words):
    data = options.default_config(loader.LOADER_OPTIONS)
    batch = next(loader.train_loader([real], words, batch_size=2, seed=0, **data))
    assert batch["image"].shape == (2, *data.image_size, 3)
    assert batch["tokens"].shape == (2, data.text_length)


def test_this_project_imports_no_jax_for_its_workers():
    program = (
        "import sys, types; import importlib;"
        "before = set(sys.modules);"
        "[importlib.import_module(f'jaxtbpr.{m}') for m in ('datasets.build', 'datasets.builder',"
        " 'datasets.source', 'datasets.transforms', 'core.tokenizer')];"
        "print([m for m in ('jax', 'tensorflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"  # `loader` is left out: grain itself imports jax


WORKERS_AND_WAIT = """
import sys, time
from jaxtbpr.core import tokenizer
from jaxtbpr.datasets import loader
from jaxtbpr.datasets.source import RetrievalSet

if __name__ == "__main__":
    one = RetrievalSet(sys.argv[1], "train")
    words = tokenizer.learn([c for cs in one.captions for c in cs], 300)
    batches = loader.train_loader(
        [one], words, batch_size=4, seed=0, image_size=(24, 12), text_length=16, workers=2
    )
    next(batches)
    print("ready", flush=True)
    time.sleep(600)
"""


def test_no_worker_outlives_a_killed_run(folder, tmp_path):
    (tmp_path / "program.py").write_text(WORKERS_AND_WAIT)
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(folder / "real")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with run:
        assert run.stdout.readline() == "ready\n"
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 2
        run.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
