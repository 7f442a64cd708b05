"""Manifests: whole or absent, resumable at every record, and honest about damage."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtbpr.core import manifest
from jaxtbpr.core.errors import UserError


def records(count):
    return [{"id": f"{k:04d}", "caption": f"caption {k} — ünï"} for k in range(count)]


def double(source):
    for record in source:
        yield [record, record | {"id": record["id"] + "-1"}]


def make(directory, shards, work=double, **options):
    manifest.map_records(shards, directory, work, label="test", shard_count=len(shards), **options)
    return manifest.Manifest(directory, manifest.shard_digests(directory))


def content(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_every_output_record_is_read_back_in_order(tmp_path):
    made = make(tmp_path, manifest.split_shards(records(10), 4))
    ids = [record["id"] for record in made]
    assert ids == [f"{k:04d}{end}" for k in range(10) for end in ("", "-1")]


def test_an_empty_input_gives_one_empty_shard(tmp_path):
    assert list(make(tmp_path, manifest.split_shards([], 4))) == []
    assert len(list(tmp_path.iterdir())) == 1


class Killed(Exception):
    pass


def killed_after(count):
    def work(source):
        for done, outputs in enumerate(double(source)):
            if done == count:
                raise Killed
            yield outputs

    return work


@given(stop=st.integers(0, 4), torn=st.integers(0, 30))
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(tmp_path_factory, stop, torn):
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    shards = manifest.split_shards(records(5), 5)
    make(whole, shards)
    if stop < 5:
        with pytest.raises(Killed):
            make(cut, shards, killed_after(stop))
        journal = next(cut.glob("*.journal"))
        data = journal.read_bytes()
        journal.write_bytes(data[: max(0, len(data) - torn)])
    make(cut, shards)
    assert content(cut) == content(whole)


def test_finished_records_are_not_made_again(tmp_path):
    shards = manifest.split_shards(records(5), 5)
    with pytest.raises(Killed):
        make(tmp_path, shards, killed_after(3))
    seen = []

    def work(source):
        for record in source:
            seen.append(record["id"])
            yield [record]

    make(tmp_path, shards, work)
    assert seen == ["0003", "0004"]


def test_work_that_depends_on_places_is_given_the_whole_shard_and_what_is_done(tmp_path):
    def work(source, done):
        places = [[record | {"place": place}] for place, record in enumerate(source)]
        return iter(places[done:])

    def killed(source, done):
        yield from itertools.islice(work(source, done), 3)
        raise Killed

    shards = manifest.split_shards(records(9), 5)
    with pytest.raises(Killed):
        make(tmp_path, shards, killed, whole=True)
    made = make(tmp_path, shards, work, whole=True)
    assert [record["place"] for record in made] == [0, 1, 2, 3, 4, 0, 1, 2, 3]


def test_work_that_loses_a_record_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="5 records went in, 3 came out"):
        make(tmp_path, [records(5)], lambda source: ([r] for r in list(source)[:3]))


def test_a_record_set_aside_is_counted_and_not_passed_on(tmp_path):
    def work(source):
        for record in source:
            odd = int(record["id"]) % 2
            yield [manifest.reject(record, "filter", "it is odd") if odd else record]

    made = make(tmp_path, [records(5)], work)
    assert [record["id"] for record in made] == ["0000", "0002", "0004"]
    assert [record["rejected"]["reason"] for record in made.rejected()] == ["it is odd"] * 2
    assert manifest.count_records(made) == {"records_out": 3, "rejected": 2}


def damage(path, how):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = how(lines[1])
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda line: line[:10] + b"\n", "line 2 is not valid JSON"),
        (lambda line: b"[1, 2]\n", "line 2 is not a record with an id"),
        (lambda line: line.replace(b"0000", b"9999"), "is not what was committed"),
    ],
)
def test_a_damaged_line_is_named_with_the_way_to_mend_it(tmp_path, how, said):
    made = make(tmp_path, [records(3)])
    damage(tmp_path / "records-00000-of-00001.jsonl", how)
    with pytest.raises(UserError, match=said) as caught:
        list(made)
    assert "only this shard is made again" in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    made = make(tmp_path, manifest.split_shards(records(6), 2))
    (tmp_path / "records-00001-of-00003.jsonl").unlink()
    with pytest.raises(UserError, match="records-00001-of-00003.jsonl is missing"):
        list(made)
    with pytest.raises(UserError, match="lacks shards"):
        manifest.shard_digests(tmp_path)


def test_lines_are_plain_json_that_other_programs_can_read(tmp_path):
    make(tmp_path, [records(2)])
    text = (tmp_path / "records-00000-of-00001.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["caption"] for line in text.splitlines()][0] == "caption 0 — ünï"
