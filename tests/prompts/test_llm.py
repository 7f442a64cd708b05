"""Engine `llm`: rough prompts go to a model, rich ones come back and are checked."""

import json

import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import stage
from tests.workers.fault_server import serving

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def rough_of(body):
    return body["messages"][0]["content"][0]["text"].split("\n\n")[1]


def rich(body):
    """A rich prompt about the sex that the stub names, different with the seed."""
    rough = rough_of(body)
    noun = "woman" if any(w in rough for w in ("woman", "female")) else "man"
    hats, bags, pins = (NUMBERS[int(digit)] for digit in f"{body['seed']:03d}"[-3:])
    return (
        f'"A photo of a {noun} with short hair in a red coat, blue jeans and white shoes, '
        f'walking in the park with {hats} hats, {bags} bags and {pins} pins."'
    )


def configured(url="", **changes):
    section = options.default_config(stage.OPTIONS)
    section.update({"engine": "llm", "train": 6, "val": 2, "test": 2} | changes)
    section.llm.update(engine="openai", url=url, models=("tiny",), retry_delay=0.01)
    return ConfigDict({"seed": 0, "prompts": section})


def run(root, server, **changes):
    workdir = Workdir(root, order=("prompts",), chosen=("prompts",))
    result = stage.run(configured(server.url, **changes), workdir)
    shards = [(root / "prompts" / name).read_text() for name in sorted(result["outputs"])]
    return result, [json.loads(line) for shard in shards for line in shard.splitlines()]


def test_every_rough_prompt_becomes_a_rich_one_and_both_are_kept(tmp_path):
    kinds = ("appearance", "profession", "location", "state", "plain")
    with serving(rich) as server:
        result, records = run(tmp_path / "a", server, kinds=kinds, images_per_prompt=2)
        again, _ = run(tmp_path / "a", server, kinds=kinds, images_per_prompt=2)
    assert result == again
    assert (result["records_out"], result["rejected"], result["duplicates"]) == (20, 0, 0)
    assert len(server.asked) == 10
    assert set(server.asked.values()) == {1}
    roughs = {rough_of(body) for body in server.bodies}
    for record in records:
        assert record["rough_prompt"] in roughs
        assert record["prompt"].startswith("A photo of a")
        assert record["model"] == "tiny"
        assert record["descriptors"]["gender"] in ("female", "male")
    assert {record["prompt_kind"] for record in records} == set(kinds)
    assert all(len(message["content"]) == 1 for b in server.bodies for message in b["messages"])


def test_a_text_about_somebody_else_or_too_long_is_asked_for_again_then_set_aside(tmp_path):
    def wrong(body):
        text = rich(body)
        return text.replace(" woman ", " man ") if " woman " in text else text

    with serving(wrong) as server:
        result, records = run(tmp_path / "a", server, train=12)
    rejected = [record for record in records if "rejected" in record]
    assert rejected
    assert all(record["descriptors"]["gender"] == "female" for record in rejected)
    assert {record["rejected"]["reason"] for record in rejected} == {
        "no usable text after 4 attempts: it speaks of a male person, not of a female one"
    }
    with serving(rich) as server:
        result, records = run(tmp_path / "b", server, max_tokens=20)
    assert result["rejected"] == 10
    assert "the text encoder takes 20" in records[0]["rejected"]["reason"]


def test_a_subject_token_must_be_in_the_first_clause(tmp_path):
    def obedient(body):
        asked = body["messages"][0]["content"][0]["text"]
        assert 'Call the person "sks person" at the beginning.' in asked
        return rich(body).replace("a man", "a sks person")

    with serving(obedient) as server:
        _, records = run(tmp_path, server, subject="sks")
    for record in records:
        is_female = record["descriptors"]["gender"] == "female"
        assert ("rejected" in record) == is_female
        assert is_female or "sks person" in record["prompt"]


def test_a_subject_token_at_the_very_beginning_is_written_as_it_was(tmp_path):
    with serving(lambda body: rich(body).replace("A photo of", "sks person,")) as server:
        _, records = run(tmp_path, server, subject="sks")
    assert not [record for record in records if "rejected" in record]
    assert all(record["prompt"].startswith("sks person, a ") for record in records)


def test_a_text_may_repeat_the_rough_prompt_but_not_the_instruction(tmp_path):
    seen = set()

    def echoing_then_faithful(body):
        rough, hats = rough_of(body), NUMBERS[body["seed"] % 10]
        if rough not in seen:
            seen.add(rough)
            return f"{rich(body)[:-2]}, what the person does, the place, the light and the camera."
        return f"{rough}, in the park and in the light of day, with a bag and {hats} hats"

    with serving(echoing_then_faithful) as server:
        _, records = run(tmp_path, server)
    assert not [record for record in records if "rejected" in record]
    assert [record["rejected_answers"] for record in records] == [["echo"]] * len(records)
    assert max(len(rough.split()) for rough in seen) > 9  # as many words as an echo has


@pytest.mark.parametrize("key", ["url", "workers", "concurrency"])
def test_how_the_model_is_reached_is_not_part_of_the_recipe(key):
    assert stage.OPTIONS["llm"][key].runtime
