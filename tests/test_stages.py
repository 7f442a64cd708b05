"""The table of stages: one row says all that the rest of the program must know of a stage."""

from jaxtbpr import stages
from jaxtbpr.core.stage import Stage
from jaxtbpr.report import facts
from jaxtbpr.report import stage as report


def test_a_stage_reads_stages_and_sections_that_there_are():
    for stage in stages.STAGES.values():
        assert set(stage.reads or ()) <= set(stages.STAGES)
        assert set(stage.sections) <= set(stages.OPTIONS)


def test_every_stage_before_the_report_is_shown_by_it():
    before = [name for name in stages.STAGES if name != "report"]
    assert list(stages.STAGES["report"].reads) == before
    assert "finetune" in before


def test_a_row_is_all_that_the_report_needs_to_show_a_stage():
    search = Stage("search", "finds people", {}, run=lambda config, workdir: {})
    assert report.stage([search]).reads == ("search",)
    counts = {"seconds": 1.0, "records_in": 2, "records_out": 2, "rejected": 0}
    (shown,) = facts.pipeline_strip({"search": counts}, {search.name: search.does})
    assert (shown["name"], shown["what"]) == ("search", "finds people")


def test_the_usual_stages_are_those_of_a_run_without_config_stages():
    assert stages.default_config().stages == stages.USUAL_STAGES
    assert {"denoise", "measure", "finetune"}.isdisjoint(stages.USUAL_STAGES)
