"""Engine `openai` against a server that misbehaves: nothing lost, nothing captioned twice."""

import re
import time

import pytest

from jaxtbpr.core import options
from jaxtbpr.core.errors import UserError
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import isolated
from tests.workers import asked
from tests.workers.fault_server import FAULTS, image_of, serving

PASSING = sorted(set(FAULTS) - {"400", "401", "404", "429 wait", "429 day"})


def answer(body):
    return asked.sentence(int(image_of(body)), body["seed"])


def run(root, server, **changes):
    if not root.exists():
        asked.write_people(root)
    return asked.caption(root, **{"engine": "openai", "url": server.url} | changes)


def test_every_passing_fault_is_survived_and_nothing_is_lost_or_done_twice(tmp_path):
    def misbehave(body, times):
        return PASSING[(int(image_of(body)) + times) % len(PASSING)] if times < 3 else None

    with serving(answer, misbehave) as server:
        result = run(tmp_path / "w", server, timeout=2.0, concurrency=20)
    assert (result["records_out"], result["rejected"]) == (10, 0)
    for number, record in enumerate(asked.captioned(tmp_path / "w")):
        assert len(set(record["captions"])) == 2
        assert all(f"number {asked.NUMBERS[number]} " in text for text in record["captions"])
    assert len(server.answered) == 20
    assert set(server.answered.values()) == {1}
    assert min(server.asked.values()) == 3


@pytest.mark.parametrize(
    ("fault", "why"),
    [("500", r"\(HTTP 500 .*oops.*\)"), ("page", r"\(the answer is not JSON: b'<h")],
)
def test_a_server_that_is_down_is_told_while_it_is_tried_again(tmp_path, monkeypatch, fault, why):
    said = []
    monkeypatch.setattr(isolated, "say", said.append)
    with serving(answer, lambda *_: None if said else fault) as server:
        run(tmp_path / "w", server, retry_delay=0.2)
    assert len(said) == 1
    assert re.match(rf"no answer from {server.url}/chat/completions {why}", said[0])
    assert len(server.answered) == 20


def test_an_answer_in_pieces_is_put_together(tmp_path):
    with serving(answer) as server:
        whole = run(tmp_path / "whole", server)
        server.is_streaming = True
        assert run(tmp_path / "pieces", server) == whole
        server.is_streaming, server.in_parts = False, True
        assert run(tmp_path / "parts", server) == whole


def test_a_finished_answer_is_never_asked_for_again_after_a_kill(tmp_path):
    """The server breaks down for good in the middle; a second run asks only for the rest."""
    seen = set()

    def misbehave(body, times):
        seen.add(body["seed"])
        return "500" if len(seen) > 9 else None

    with serving(answer, misbehave) as server:
        told = r"after 3 attempts \(HTTP 500 .*oops\); check its log, and whether it serves 't"
        with pytest.raises(UserError, match=told):
            run(tmp_path / "w", server, max_attempts=3, concurrency=1)
    with serving(answer) as second:
        run(tmp_path / "w", second, concurrency=1)
    assert set((server.answered + second.answered).values()) == {1}
    assert 0 < len(server.answered) < len(second.answered)
    with serving(answer) as third:
        run(tmp_path / "whole", third)
    assert asked.captioned(tmp_path / "w") == asked.captioned(tmp_path / "whole")


def test_an_outage_while_many_requests_are_under_way_loses_none_of_them(tmp_path):
    """All ten of a task are under way when the server answers two and then breaks down."""
    with serving(answer) as server:

        def misbehave(body, times):
            if image_of(body) == b"0":
                while len(server.asked) < 10:
                    time.sleep(0.01)
                return None
            while server.answered.total() < 2:
                time.sleep(0.01)
            time.sleep(0.5 if times == 1 else 0)  # the answers have arrived
            return "500"

        server.misbehave = misbehave
        with pytest.raises(UserError, match=r"no answer from .* after 3 attempts"):
            run(tmp_path / "w", server, max_attempts=3)
    assert set(server.answered.values()) <= {1}
    with serving(answer) as second:
        result = run(tmp_path / "w", second)
    assert result["rejected"] == 0
    assert all(len(record["captions"]) == 2 for record in asked.captioned(tmp_path / "w"))


def test_a_top_p_of_0_which_servers_refuse_is_refused_before_anything_runs():
    known = clients.options("tiny", max_tokens=10)
    config = options.default_config(known)
    config.top_p = 0.0
    with pytest.raises(UserError, match=r"top_p=0.0 is out of range"):
        options.validate(config, known)


def test_a_server_that_refuses_every_request_ends_the_run_and_rejects_nothing(tmp_path):
    asked.write_people(tmp_path / "w", shard=10)
    with serving(answer, lambda *_: "400") as server:
        with pytest.raises(UserError, match=r"refuses every request: .*HTTP 400 .*image too large"):
            run(tmp_path / "w", server)
    with serving(answer) as second:
        assert run(tmp_path / "w", second)["rejected"] == 0
    assert set(second.answered.values()) == {1}
    assert len(second.answered) == 20


def test_one_refusal_of_all_of_a_few_requests_ends_the_run_too(tmp_path):
    asked.write_people(tmp_path / "w", count=2)
    with serving(answer, lambda *_: "400") as server:
        with pytest.raises(UserError, match=r"refuses every request: .*image too large"):
            run(tmp_path / "w", server, per_image={"train": 1})


def test_an_answer_without_any_content_is_an_empty_one(tmp_path):
    asked.write_people(tmp_path / "w", count=1)
    with serving(lambda _: (None, "length")) as server:
        result = run(tmp_path / "w", server, retries=1)
    assert result["answers"]["rejected"] == {"empty": 4}
    (record,) = asked.captioned(tmp_path / "w")
    assert "the model was cut off before any: raise max_tokens" in record["rejected"]["reason"]


@pytest.mark.parametrize("image_tokens", [0, 4])
def test_a_model_whose_server_leaves_images_out_is_told_once(tmp_path, monkeypatch, image_tokens):
    said = []
    monkeypatch.setattr(isolated, "say", said.append)
    with serving(lambda body: answer(body) if image_of(body) else "A") as server:
        server.count_tokens = lambda body: 23 + image_tokens * bool(image_of(body))
        run(tmp_path / "w", server)
    assert [body["max_tokens"] for body in server.bodies if not image_of(body)] == [1]
    told = [line for line in said if "'tiny' gets 23 tokens from the server with an image" in line]
    assert len(told) == (image_tokens == 0)


def test_useless_answers_are_asked_for_again_then_set_aside_with_the_reason(tmp_path):
    fives = []

    def stubborn(body):
        number = int(image_of(body))
        if number == 3:
            return "I'm sorry, but I cannot describe people."
        if number == 4:
            return "The same person in a red coat is here with a bag."
        if number == 5 and len(fives) < 2:  # both captions at first
            fives.append(body)
            return "A woman with [bag] in the red coat and shoes."
        return answer(body)

    with serving(stubborn) as server:
        result = run(tmp_path / "w", server, retries=2)
    records = asked.captioned(tmp_path / "w")
    rejected = {r["id"]: r["rejected"]["reason"] for r in records if "rejected" in r}
    assert list(rejected) == ["00000003"]
    assert rejected["00000003"].startswith("no usable caption after 3 attempts: the model refuses")
    assert result["rejected"] == 1
    (lost,) = records[4]["rejected_captions"]
    assert (len(records[4]["captions"]), lost["rejected_answers"]) == (1, ["same"] * 3)
    assert lost["reason"] == "it is the same as another answer"
    statistics = result["answers"]
    assert statistics["captions"] == 17
    assert statistics["given_up"] == 3
    assert statistics["rejected"]["refusal"] == 6
    assert statistics["rejected"]["same"] == 3
    assert statistics["min_words"] <= statistics["mean_words"] <= statistics["max_words"]
    assert statistics["vocabulary"] > 10


def test_what_the_server_says_of_one_request_is_that_records_problem(tmp_path):
    asked.write_people(tmp_path / "w")
    (tmp_path / "w/augment/images/00000002.png").unlink()
    with serving(answer, lambda body, _: "400" if image_of(body) == b"7" else None) as server:
        run(tmp_path / "w", server)
    rejected = [record for record in asked.captioned(tmp_path / "w") if "rejected" in record]
    reasons = {record["id"][-1]: record["rejected"]["reason"] for record in rejected}
    assert set(reasons) == {"2", "7"}
    assert "the image cannot be read" in reasons["2"]
    assert 'HTTP 400 Bad Request: {"error": "image too large"}' in reasons["7"]
    assert max(server.asked.values()) == 1


@pytest.mark.parametrize(("fault", "match"), [("401", "bad key"), ("404", "no such model")])
def test_what_concerns_all_requests_ends_the_run_with_one_sentence(tmp_path, fault, match):
    with serving(answer, lambda *_: fault) as server:
        with pytest.raises(UserError, match=rf"refuses model 'tiny' \(HTTP {fault} .*{match}\)"):
            run(tmp_path / "w", server)


def test_requests_are_as_the_config_says(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    given = {"temperature": 0.3, "top_p": 0.5, "max_tokens": 77, "models": ("a/x", "b/y")}
    with serving(answer) as server:
        run(tmp_path / "w", server, concurrency=3, instruction="both", **given)
    assert server.most_at_once <= 3
    for body in server.bodies:
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.3, 0.5, 77)
        (message,) = body["messages"]
        image, text = message["content"]
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        assert text["type"] == "text"
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    for record in asked.captioned(tmp_path / "w"):
        sources = record["caption_source"]
        assert {source["model"] for source in sources} == {"a/x", "b/y"}
        assert {source["instruction"] for source in sources} == {"constant", "variable"}
    assert "secret" not in "".join(
        path.read_text() for path in (tmp_path / "w").rglob("*") if path.is_file()
    )


def test_a_pause_that_the_server_asks_for_and_a_rate_limit_are_kept(tmp_path):
    asked.write_people(tmp_path / "w", count=2)
    with serving(answer, lambda _, times: "429 wait" if times == 1 else None) as server:
        run(tmp_path / "w", server, requests_per_minute=120.0, per_image={"train": 1})
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(server.times) == 4
    assert min(gaps) > 0.25  # of 0.5 s, as the server sees them
    assert server.times[2] - server.times[0] >= 0.95


def test_records_without_an_image_are_set_aside_and_no_model_is_told(tmp_path):
    asked.write_records(tmp_path / "w", [{"id": "x", "identity": "x", "split": "test"}])
    with serving(answer) as server:
        result = run(tmp_path / "w", server)
        assert result["rejected"] == 1
        with pytest.raises(UserError, match=r"config.caption.models names no model"):
            run(tmp_path / "v", server, models=("",))


def test_a_parameter_goes_by_the_servers_name_or_is_left_out(tmp_path):
    names = {"max_tokens": "max_completion_tokens", "temperature": "", "top_p": "", "seed": ""}
    with serving(lambda _: next(texts)) as server:
        texts = (asked.sentence(k % 10, k) for k in range(100))
        run(tmp_path / "w", server, parameters=names, max_tokens=33)
    for body in server.bodies:
        assert set(body) == {"model", "messages", "max_completion_tokens"}
        assert body["max_completion_tokens"] == 33


def test_a_refused_parameter_is_told_with_the_key_that_renames_it(tmp_path, monkeypatch):
    said = b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    monkeypatch.setitem(FAULTS, "400", lambda h: h.send(400, said))
    asked.write_people(tmp_path / "w", shard=10)
    told = r"max_completion_tokens' instead\.\); config key parameters\.max_tokens of this stage"
    with serving(answer, lambda *_: "400") as server, pytest.raises(UserError, match=told):
        run(tmp_path / "w", server)


def test_a_server_that_asks_for_a_day_ends_the_run_at_once(tmp_path):
    with serving(answer, lambda *_: "429 day") as server:
        with pytest.raises(UserError, match=r"asks to wait 24\.0 hours \(HTTP 429 .*come back"):
            run(tmp_path / "w", server)
    with serving(answer) as second:
        assert run(tmp_path / "w", second)["rejected"] == 0


@pytest.mark.parametrize("fault", ["500", "404"])
@pytest.mark.parametrize(
    ("models", "told"),
    [(["tiny-vl"], "did you mean 'tiny-vl'?"), (["a/b", "c"], "it has a/b, c.")],
)
def test_a_model_that_the_server_does_not_list_is_told(tmp_path, monkeypatch, fault, models, told):
    said = []
    monkeypatch.setattr(isolated, "say", said.append)
    with serving(answer, lambda *_: fault) as server:
        server.models = models
        with pytest.raises(UserError, match=re.escape(f"does not list model 'tiny'; {told}")):
            run(tmp_path / "w", server, max_attempts=2)
    assert all("does not list model 'tiny'" in line for line in said if "are tried" in line)


@pytest.mark.parametrize("is_deaf", [True, False])
def test_a_server_that_ignores_the_seed_is_told(tmp_path, monkeypatch, is_deaf):
    said = []
    monkeypatch.setattr(clients, "say", said.append)

    def useless(body):
        return "A dog." if is_deaf else f"Dog {body['seed']}."

    with serving(useless) as server:
        run(tmp_path / "w", server, retries=2)
    told = [line for line in said if "gave the same answer again in 20 of 20" in line]
    assert len(told) == is_deaf
    assert all("do_sample" in line for line in told)
