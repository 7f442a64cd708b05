"""The pipeline: which stage runs, is skipped, resumes or is refused, and what the user reads."""

import errno
import json
import os
import shutil

import pytest
from ml_collections import ConfigDict

from jaxtbpr import command_line, pipeline, stages
from jaxtbpr.core import manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.options import Option
from jaxtbpr.core.stage import Stage
from tests.datasets import folders


class Recorder:
    """Two record stages and a last one, small enough to see through."""

    def __init__(self):
        self.ran = []
        self.failure = None
        self.reasons = {}  # id: why stage change rejects the record
        self.check = lambda config: None  # of stage change
        self.fingerprint = lambda config: None  # of what the last stage reads from outside

    def source(self, config, workdir):
        self.ran.append("source")
        made = [{"id": f"{k}", "text": config.source.text} for k in range(config.source.count)]
        manifest.map_records(
            [made], workdir.dir("source"), lambda r: ([x] for x in r), label="", shard_count=1
        )
        return self.result(workdir, "source", 0)

    def change(self, config, workdir):
        self.ran.append("change")
        if self.failure:
            raise self.failure
        return workdir.map_stage("change", lambda r: ([self.changed(x, config.seed)] for x in r))

    def changed(self, record, seed):
        if record["id"] in self.reasons:
            return manifest.reject(record, "change", self.reasons[record["id"]])
        return record | {"seed": seed}

    def finish(self, config, workdir):
        self.ran.append("finish")
        count = len(list(workdir.manifest("change")))
        score = {"R1": 0.5, "chance_R1": 0.1}
        counts = {"records_in": count, "records_out": count, "rejected": 0}
        return {"outputs": {}, "metrics": {"a/test": score}} | counts

    def result(self, workdir, stage, records_in):
        outputs = manifest.shard_digests(workdir.dir(stage))
        made = manifest.Manifest(workdir.dir(stage), outputs)
        return {"outputs": outputs, "records_in": records_in} | manifest.count_records(made)


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()

    source = {"count": Option(3, "", low=1), "text": Option("a", "")}
    change = {"workers": Option(1, "", runtime=True), "way": Option("up", "")}
    rows = (
        Stage("source", "makes", source, recorder.source, reads=()),
        Stage("change", "changes", change, recorder.change, check=lambda c: recorder.check(c)),
        Stage(
            "evaluate",
            "ends",
            {"model": Option("tiny", "")},
            recorder.finish,
            reads=("change",),
            fingerprint=lambda c: recorder.fingerprint(c),
        ),
    )
    table = {stage.name: stage for stage in rows}
    names = tuple(table)
    everything = {"seed": Option(0, ""), "stages": Option(names, "", choices=names)}
    monkeypatch.setattr(stages, "STAGES", table)
    monkeypatch.setattr(stages, "ORDER", names[:2])
    sections = {name: stage.options for name, stage in table.items()}
    monkeypatch.setattr(stages, "OPTIONS", everything | sections)
    return recorder


def config(**changes) -> ConfigDict:
    made = stages.default_config()
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return made


def test_stages_run_in_order_and_the_summary_counts_records(recorder, tmp_path):
    summary = pipeline.run(config(), tmp_path)
    assert recorder.ran == ["source", "change", "finish"]
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    counts = {name: (s["records_in"], s["records_out"]) for name, s in summary["stages"].items()}
    assert counts == {"source": (0, 3), "change": (3, 3), "evaluate": (3, 3)}
    assert summary["evaluate"] == {"a/test": {"R1": 0.5, "chance_R1": 0.1}}


def test_a_stage_keeps_what_was_changed_and_how_it_ran(recorder, tmp_path):
    pipeline.run(config(**{"source.count": 4}), tmp_path)
    kept = json.loads((tmp_path / "source" / "commit.json").read_text())
    assert kept["changed"] == ["source.count"]
    assert sorted(kept["ran"]) == ["command", "date", "machine", "source"]
    assert kept["ran"]["command"].startswith("python ")
    pipeline.run(config(**{"source.count": 4}), tmp_path)
    assert json.loads((tmp_path / "source" / "commit.json").read_text()) == kept


def test_a_finished_run_is_skipped(recorder, tmp_path):
    first = pipeline.run(config(), tmp_path)
    recorder.ran.clear()
    assert pipeline.run(config(), tmp_path) == first
    assert recorder.ran == []


def test_a_runtime_key_does_not_redo_a_stage(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    recorder.ran.clear()
    pipeline.run(config(change__workers=7), tmp_path)
    assert recorder.ran == []


def test_other_settings_are_refused_with_each_differing_key(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    with pytest.raises(UserError, match=r"config.source.count was 3, now 5") as caught:
        pipeline.run(config(source__count=5, source__text="b"), tmp_path)
    assert "config.source.text was 'a', now 'b'" in str(caught.value)
    assert "choose another --workdir, or add --rerun" in str(caught.value)
    assert len(list(pipeline.Workdir(tmp_path, (), ()).manifest("source"))) == 3


def test_rerun_makes_the_stage_and_what_follows_anew(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    recorder.ran.clear()
    pipeline.run(config(change__way="down"), tmp_path, rerun=True)
    assert recorder.ran == ["change"]  # its output is the same, so what follows still holds
    summary = pipeline.run(config(source__count=5), tmp_path, rerun=True)
    assert recorder.ran == ["change", "source", "change", "finish"]
    assert summary["stages"]["evaluate"]["records_in"] == 5


def test_a_rerun_that_is_refused_loses_nothing(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    before = pipeline.Workdir(tmp_path, (), ()).commit("change")
    recorder.failure = UserError("that way leads nowhere; choose another.")
    with pytest.raises(UserError, match="leads nowhere"):
        pipeline.run(config(change__way="down", stages=("change",)), tmp_path, rerun=True)
    assert pipeline.Workdir(tmp_path, (), ()).commit("change") == before
    recorder.failure = None
    recorder.ran.clear()
    pipeline.run(config(), tmp_path)
    assert recorder.ran == []
    assert not list(tmp_path.glob(".*.before"))


def test_a_rerun_that_is_killed_before_it_made_anything_loses_nothing(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    folder, kept = tmp_path / "change", tmp_path / ".change.before"
    shutil.copytree(folder, kept)
    before = json.loads((kept / "commit.json").read_text())
    shutil.rmtree(folder)
    folder.mkdir()
    recipe = before["recipe"] | {"config": {"way": "down"}}
    (folder / "started.json").write_text(json.dumps({"recipe": recipe, "seconds": 0.0}))
    recorder.ran.clear()
    pipeline.run(config(), tmp_path)
    assert recorder.ran == []
    assert json.loads((folder / "commit.json").read_text()) == before
    assert not kept.exists()


def test_what_a_rerun_replaced_goes_only_when_it_is_done(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    (tmp_path / ".change.before").mkdir()  # of a run that was killed right after its commit
    pipeline.run(config(), tmp_path)
    assert not (tmp_path / ".change.before").exists()


def test_a_full_disk_that_orbax_tells_of_is_a_sentence(recorder, tmp_path):
    recorder.failure = ValueError("OUT_OF_RANGE: Error writing \"x\" [os_error_code='28']")
    with pytest.raises(UserError, match="No space left on device at .*: free some space and rerun"):
        pipeline.run(config(), tmp_path)
    recorder.failure = ValueError("something else")
    with pytest.raises(ValueError, match="something else"):
        pipeline.run(config(), tmp_path)


def test_results_of_an_earlier_state_are_not_told_as_this_one_s(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    only = config(source__count=5, stages=("source", "change"))
    summary = pipeline.run(only, tmp_path, rerun=True)
    assert "evaluate" not in summary
    assert "evaluate" not in summary["stages"]
    assert summary["outdated"] == ["evaluate"]
    assert "outdated: evaluate" in command_line.final_lines(summary, tmp_path)
    summary = pipeline.run(config(source__count=5), tmp_path, rerun=True)
    assert summary["outdated"] == []
    assert "evaluate" in summary


def test_an_input_that_changed_is_named(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    pipeline.run(config(source__count=5, stages=("source",)), tmp_path, rerun=True)
    with pytest.raises(UserError, match=r"\(the results of stage 'source' have changed\)"):
        pipeline.run(config(source__count=5), tmp_path)


def test_a_model_that_changed_is_named_by_its_key(recorder, tmp_path):
    recorder.fingerprint = lambda config: {"clip": "one", "/models/llava": "one"}
    pipeline.run(config(), tmp_path)
    recorder.fingerprint = lambda config: {"clip": "two", "/models/llava": "two"}
    told = "a model or folder that it reads has changed: config.evaluate.model, /models/llava"
    with pytest.raises(UserError, match=told):
        pipeline.run(config(), tmp_path)


def test_a_stage_that_failed_runs_again_alone(recorder, tmp_path):
    recorder.failure = UserError("the tool is missing; install it.")
    with pytest.raises(UserError, match="the tool is missing"):
        pipeline.run(config(), tmp_path)
    recorder.failure = None
    recorder.ran.clear()
    pipeline.run(config(), tmp_path)
    assert recorder.ran == ["change", "finish"]


def test_an_interrupted_stage_does_not_go_on_with_other_settings(recorder, tmp_path):
    recorder.failure = UserError("killed")
    with pytest.raises(UserError):
        pipeline.run(config(), tmp_path)
    recorder.failure = None
    (tmp_path / "change" / "records-00000-of-00001.journal").write_text("")
    with pytest.raises(UserError, match="config.seed was 0, now 1"):
        pipeline.run(config(seed=1, stages=("change",)), tmp_path)


def test_a_stage_that_stopped_before_it_made_anything_takes_other_settings(recorder, tmp_path):
    recorder.failure = UserError("config.change.way='up' does not fit.")
    with pytest.raises(UserError, match="does not fit"):
        pipeline.run(config(), tmp_path)
    recorder.failure = None
    summary = pipeline.run(config(change__way="down"), tmp_path)
    assert summary["stages"]["change"]["records_out"] == 3


def test_no_stage_at_all_is_refused(recorder, tmp_path):
    with pytest.raises(UserError, match=r"config.stages is empty; name at least one of source, "):
        pipeline.run(config(stages=()), tmp_path)


@pytest.mark.parametrize("below", ["", "/run"])
def test_a_workdir_that_is_a_file_is_told(recorder, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file.*: choose a --workdir that is a folder"):
        pipeline.run(config(), f"{tmp_path}/file{below}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "No space left on device at /x/y.png: free some space and rerun"),
        (errno.EROFS, "Read-only file system at /x/y.png: choose a --workdir"),
    ],
)
def test_a_full_or_read_only_disk_is_one_sentence(recorder, tmp_path, code, said):
    recorder.failure = OSError(code, os.strerror(code), "/x/y.png")
    with pytest.raises(UserError, match=said):
        pipeline.run(config(), tmp_path)


def test_values_are_checked_before_anything_runs(recorder, tmp_path):
    with pytest.raises(UserError, match="config.source.count=0 is out of range"):
        pipeline.run(config(source__count=0), tmp_path)
    assert recorder.ran == []
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_to_be_made_is_checked_before_any_runs(recorder, tmp_path):
    def check(config):
        if config.change.way != "up":
            raise UserError(f"no way {config.change.way}.")

    recorder.check = check
    with pytest.raises(UserError, match="no way down"):
        pipeline.run(config(change__way="down"), tmp_path)
    assert recorder.ran == []
    pipeline.run(config(change__way="down", stages=("source",)), tmp_path)
    pipeline.run(config(), tmp_path)
    with pytest.raises(UserError, match="no way down"):
        pipeline.run(config(change__way="down"), tmp_path, rerun=True)


def test_a_finished_stage_is_not_checked_again(recorder, tmp_path):
    pipeline.run(config(), tmp_path)
    recorder.check = lambda config: pytest.fail("it has nothing to do")
    pipeline.run(config(), tmp_path)
    with pytest.raises(UserError, match="has results of other settings"):
        pipeline.run(config(change__way="down"), tmp_path)


def test_what_a_stage_reads_from_outside_is_looked_for_before_any_runs(recorder, tmp_path):
    def fingerprint(config):
        raise UserError("no such model.")

    recorder.fingerprint = fingerprint
    with pytest.raises(UserError, match="no such model"):
        pipeline.run(config(), tmp_path)
    assert recorder.ran == []


def test_one_stage_can_be_run_by_itself(recorder, tmp_path):
    pipeline.run(config(stages=("source",)), tmp_path)
    pipeline.run(config(stages=("change",)), tmp_path)
    assert recorder.ran == ["source", "change"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data.test_sets": ("own", "b")},
            "data.test_sets names 'b', but stage 'build' will make own:",
        ),
        ({"build.folders": {"own": ""}}, "names 'own', but stage 'build' will make no set: give"),
        ({"data.train_sets": ("synthetic",)}, "config.data.train_sets names 'synthetic'"),
        ({"build.folders": {"own": 3}}, "config.build.folders.own=3 must be the path of a folder"),
    ],
)
def test_a_set_that_will_not_be_built_is_told_before_anything_is(tmp_path, changes, said):
    made = stages.default_config()
    made.stages = ("build", "train", "evaluate")
    made.build.folders = {"own": "/data/own", "other": ""}
    made.data.update(train_sets=("own",), test_sets=())
    made.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said):
        pipeline.run(made, tmp_path)
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("changes", "made_here"),
    [
        ({}, 4 * 5 * 3),  # prompts, images of each with edits, captions
        ({"stages": ("prompts", "generate", "caption", "build", "train")}, 4 * 3),
        ({"data.train_sets": ("own",)}, 0),
        ({"data.train_sets": ("own", "synthetic")}, 4 * 5 * 3),
    ],
)
def test_a_batch_larger_than_the_train_sets_is_told_before_anything_is_made(
    tmp_path, changes, made_here
):
    own = folders.make_folder(tmp_path / "own", "cuhk_pedes", people=9)
    own_pairs = sum(len(photo.captions) for photo in own.split("train"))
    made = stages.default_config()
    made.prompts.train, made.augment.edits, made.caption.per_image.train = 4, 4, 3
    made.build.folders = {"own": str(own.path)}
    made.update_from_flattened_dict(changes)
    most = made_here + (own_pairs if "own" in made.data.train_sets else 0)
    made.train.batch_size = most + 1
    with pytest.raises(UserError, match=rf"config.train.batch_size={most + 1} .* the {most} \("):
        pipeline.run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_train_set_without_a_train_split_is_told_as_such(tmp_path):
    own = tmp_path / "own"
    folders.write_image(own / "a.jpg", 0)
    (own / "captions.csv").write_text("image,caption,split\na.jpg,a man,val\n")
    made = stages.default_config()
    made.stages = ("build", "train")
    made.data.update(train_sets=("own",), test_sets=())
    made.build.folders = {"own": str(own)}
    with pytest.raises(UserError, match=r"train_sets=\('own',\) has nothing to train on: no train"):
        pipeline.run(made, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "config.generate.engine='render' needs the attributes of persons, which config.pro"),
        ({"generate.engine": "diffusion"}, "config.augment.engine='render' needs the attributes"),
        (
            {"generate.engine": "diffusion", "augment.engine": "diffusion"},
            "config.caption.engine='template' needs the attributes",
        ),
        (
            {"stages": ("photos", "caption")},
            "config.caption.engine='template' needs the attributes of persons, which stage 'photo",
        ),
        (
            {"prompts.engine": "template", "denoise.action": "reweight", "train.captions": 2},
            "config.train.captions=2 needs one weight per image",
        ),
        (
            {"prompts.engine": "template", "caption.engine": "openai", "caption.models": ()},
            "config.caption.models names no model",
        ),
        (
            {"prompts.engine": "llm", "stages": ("prompts",), "prompts.llm.python": "/no/python"},
            "config.prompts.llm.python=/no/python cannot be run",
        ),
        (
            {"prompts.engine": "template", "filter.engines": ("pose",)}
            | {"filter.pose.python": "/no/python"},
            "config.filter.pose.python=/no/python cannot be run",
        ),
        (
            {"prompts.engine": "template", "measure.reference": "nowhere"},
            "config.measure.reference: nowhere does not exist; give the WORKDIR of a run",
        ),
        (
            {"prompts.engine": "template", "denoise.model": "tiny-clipp"},
            "config.denoise.model: tiny-clipp does not exist; .* did you mean tiny-clip?",
        ),
        (
            {"prompts.engine": "template", "model.weights": "lost.safetensors"},
            "config.model.weights: lost.safetensors does not exist",
        ),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_made(tmp_path, changes, said):
    made = stages.default_config()
    names = ("prompts", "generate", "filter", "augment", "caption", "denoise", "measure")
    made.stages = (*names, "build", "train")
    made.prompts.engine = "grammar"
    made.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said):
        pipeline.run(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fid_is_checked_where_it_is_wanted(tmp_path):
    made = stages.default_config()
    made.measure.fid.python = "/no/python"
    stages.STAGES["measure"].check(made)
    made.measure.fid.weights = str(tmp_path / "inception.pth")
    with pytest.raises(UserError, match="config.measure.fid.python=/no/python cannot be run"):
        stages.STAGES["measure"].check(made)


def test_a_stage_that_rejects_all_ends_the_run_with_its_most_common_reason(recorder, tmp_path):
    recorder.reasons = {"0": "a/0.png is blank", "1": "a/1.png shows 3", "2": "a/2.png shows 2"}
    told = (
        r"^stage 'change' has rejected all of its 3 records, 2 of them for a reason like this: "
        rf"a/1.png shows 3; fix it, delete {tmp_path / 'change'} and rerun\.$"
    )
    for _ in range(2):  # also where it is found so
        with pytest.raises(UserError, match=told):
            pipeline.run(config(), tmp_path)
    assert recorder.ran == ["source", "change"]
    shutil.rmtree(tmp_path / "change")
    del recorder.reasons["0"]
    pipeline.run(config(), tmp_path)
    assert recorder.ran[2:] == ["change", "finish"]


def test_the_command_line_refuses_unknown_keys_and_files():
    with pytest.raises(UserError, match="did you mean config.train.batch_size"):
        command_line.prepare_arguments(["main", "--config.train.batchsize=3"])
    with pytest.raises(UserError, match="config.train.epochs=many must be a whole number"):
        command_line.prepare_arguments(["main", "--config.train.epochs=many"])
    with pytest.raises(UserError, match="--config=nothing.py does not exist"):
        command_line.prepare_arguments(["main", "--config=nothing.py"])
    with pytest.raises(UserError, match="--config= does not exist"):
        command_line.prepare_arguments(["main", "--config="])


def test_every_key_has_a_sentence_and_a_valid_default():
    pipeline.options.validate(stages.default_config(), stages.OPTIONS)
    for key, option in pipeline.options.flatten(stages.OPTIONS).items():
        assert len(option.help) > 8, f"config.{key} has no help"


def test_a_seed_beyond_what_the_device_tells_apart_is_refused():
    config = stages.default_config()
    config.seed = 2**32
    with pytest.raises(UserError, match=f"config.seed={2**32} is out of range"):
        options.validate(config, stages.OPTIONS)
