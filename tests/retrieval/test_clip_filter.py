"""Filter engine clip: images that do not show what their prompt asks for are rejected."""

import pytest
from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.synthesis import filter
from tests.retrieval import colours
from tests.retrieval.colours import Colours, make_run, record

STAGE = filter.stage({"clip": stages.FILTER_ENGINES["clip"]})


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(scoring, "open_scorer", lambda options: Colours())


def people():
    """Eight people, of whom the third and the sixth are not as asked for."""
    made = [record(f"{k}", ("red", "green", "blue")[k % 3]) for k in range(8)]
    made[2]["prompt"], made[5]["prompt"] = "someone in red", "a coat of green and shoes of blue"
    return made


def run(workdir, **values):
    config = ConfigDict({"seed": 0, "filter": options.default_config(STAGE.options)})
    config.filter.clip.update(values)
    result = STAGE.run(config, workdir)
    made = manifest.Manifest(workdir.dir("filter"), result["outputs"])
    return {r["id"]: r["rejected"]["reason"] for r in made.rejected()}


def test_a_threshold_refuses_what_scores_less(tmp_path):
    workdir = make_run(tmp_path, people(), "generate", "filter")
    rejected = run(workdir, method="threshold", min_score=0.3)
    reason = "generate/images/2.png shows little of its prompt: CLIP score 0.000"
    assert rejected == {"2": reason}


def test_a_quantile_refuses_the_worst_of_all_shards(tmp_path):
    workdir = make_run(tmp_path, people(), "generate", "filter")
    assert set(run(workdir, method="quantile", reject_fraction=0.25)) == {"2", "5"}


def test_prompts_that_the_judge_reads_in_part_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(colours, "LENGTH", 7)
    run(make_run(tmp_path, people(), "generate", "filter"), clauses=False)
    told = "filter clip: 1 of 8 prompts is cut at 7 tokens"
    assert told in capsys.readouterr().err


def test_an_image_that_cannot_be_used_is_refused_and_not_scored(tmp_path):
    workdir = make_run(tmp_path, people(), "generate", "filter")
    (tmp_path / "generate/images/0.png").write_bytes(b"nothing")
    rejected = run(workdir, method="quantile", reject_fraction=0.15)  # one of the seven others
    assert set(rejected) == {"0", "2"}
    assert "0.png: the image is not the file that the manifest names" in rejected["0"]


def test_a_record_without_a_prompt_is_told(tmp_path):
    made = people()
    del made[4]["prompt"]
    workdir = make_run(tmp_path, made, "generate", "filter")
    with pytest.raises(UserError, match="record 4 has none; leave 'clip' out"):
        run(workdir)


def test_the_model_is_part_of_the_recipe():
    config = ConfigDict({"filter": options.default_config(STAGE.options)})
    assert STAGE.fingerprint(config) == {"clip": scoring.fingerprint("tiny-clip")}
