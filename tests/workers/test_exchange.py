"""Tasks, claims and answers on disk: who has a task, and what is left of a killed worker."""

import json
import multiprocessing
import os
import time

import pytest

from jaxtbpr.workers.worker.answering import exchange, serve


def request(name, model="m"):
    return {"id": name, "model": model, "messages": [], "image": None, "seed": 1}


@pytest.fixture
def folder(tmp_path):
    exchange.prepare(tmp_path, {"engine": "fake", "claim_seconds": 60.0})
    exchange.write_task(tmp_path, "0", [request("a"), request("b")])
    exchange.write_task(tmp_path, "1", [request("c", "other")])
    return tmp_path


def answer(name):
    return {"id": name, "text": name.upper(), "finish": "stop"}


def test_a_task_has_one_owner_until_the_claim_expires(folder):
    first = exchange.claim(folder, "0", "one", 60)
    assert exchange.claim(folder, "0", "two", 60) is None
    old = time.time() - 61
    os.utime(folder / "claims" / "0.0", (old, old))
    second = exchange.claim(folder, "0", "two", 60)
    assert first.is_lost()
    assert not second.is_lost()
    assert exchange.claim(folder, "0", "three", 60) is None


def test_a_claim_that_is_kept_fresh_does_not_expire_and_then_is_given_up(folder):
    with exchange.claim(folder, "0", "one", 0.5).kept_fresh(0.5):
        time.sleep(1.0)
        assert exchange.claim(folder, "0", "two", 0.5) is None
    assert exchange.claim(folder, "0", "two", 60)


def test_the_claims_of_a_dead_worker_are_released_and_no_others(folder):
    exchange.claim(folder, "0", "dead", 60)
    exchange.claim(folder, "1", "alive", 60)
    exchange.release(folder, "dead")
    assert exchange.claim(folder, "1", "new", 60) is None
    assert exchange.claim(folder, "0", "new", 60)


def _race(folder, number, start, won):
    start.wait()
    if exchange.claim(folder, "0", f"w{number}", 60):
        won.put(number)


@pytest.mark.parametrize("is_expired", [False, True])
def test_of_several_that_want_a_task_at_once_one_gets_it(folder, is_expired):
    if is_expired:
        exchange.claim(folder, "0", "old", 60)
        os.utime(folder / "claims" / "0.0", (0, 0))
    context = multiprocessing.get_context("fork")
    start, won = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(folder, k, start, won)) for k in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join()
    assert won.get(timeout=5) in range(8)
    assert won.empty()


def test_a_line_that_was_cut_off_is_ignored_and_only_it_is_done_again(folder):
    first = exchange.claim(folder, "0", "one", 60)
    first.append(answer("a"))
    part = folder / "answers" / "0.0.part"
    part.write_bytes(part.read_bytes() + json.dumps(answer("b")).encode()[:-3])
    assert exchange.partial_answers(folder, "0") == {"a": answer("a")}
    assert not exchange.finish(folder, "0")
    exchange.release(folder, "one")
    exchange.claim(folder, "0", "two", 60).append(answer("b"))
    assert exchange.finish(folder, "0")
    assert exchange.read_answers(folder, "0") == [answer("a"), answer("b")]
    assert exchange.open_tasks(folder) == ["1"]


def test_whole_answers_never_change_whoever_comes_later(folder):
    exchange.claim(folder, "1", "one", 60).append(answer("c"))
    assert exchange.finish(folder, "1")
    (folder / "answers" / "1.7.part").write_text('{"id": "c", "text": "late"}\n')
    assert exchange.finish(folder, "1")
    assert exchange.read_answers(folder, "1") == [answer("c")]


def test_a_worker_answers_all_tasks_those_of_the_loaded_model_first(folder):
    exchange.write_task(folder, "2", [request("d")])
    asked = []

    def open_engine(model):
        def engine(requests, done):
            for one in requests:
                asked.append((model, one["id"]))
                yield answer(one["id"])
            if len(asked) == 4:
                closing.append(True)

        return engine

    closing = []
    monitored = serve.time.sleep

    def sleep(seconds):
        if closing:
            exchange.close(folder)
        monitored(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.time, "sleep", sleep)
        serve.serve(folder, "w", open_engine, {"claim_seconds": 60.0})
    assert asked == [("m", "a"), ("m", "b"), ("m", "d"), ("other", "c")]
    assert exchange.open_tasks(folder) == []


def test_a_worker_that_lost_its_claim_writes_no_more(folder):
    asked = []

    def open_engine(model):
        def engine(requests, done):
            for one in requests:
                asked.append(one["id"])
                yield answer(one["id"])
                (folder / "claims" / "0.1").write_text("thief")
                exchange.write_whole(folder / "answers" / "1.jsonl", [answer("c")])

        return engine

    def sleep(_):
        exchange.close(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.time, "sleep", sleep)
        serve.serve(folder, "w", open_engine, {"claim_seconds": 60.0})
    assert asked == ["a", "b"]
    assert exchange.partial_answers(folder, "0") == {"a": answer("a")}


def test_answers_are_counted_once_whether_their_task_is_finished_or_not(folder):
    whole = {}
    assert exchange.count_answers(folder, whole) == 0
    mine = exchange.claim(folder, "0", "one", 60)
    mine.append(answer("a"))
    assert exchange.count_answers(folder, whole) == 1
    mine.append(answer("b"))
    assert exchange.finish(folder, "0")
    assert exchange.count_answers(folder, whole) == 2
    mine.append(answer("b"))  # of a holder that has not seen it
    exchange.claim(folder, "1", "one", 60).append(answer("c"))
    assert exchange.count_answers(folder, whole) == 3
    assert whole == {"0": 2}
