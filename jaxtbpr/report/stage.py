"""Stage report: one HTML file that shows a run, and a config file that repeats it."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from jaxtbpr.core import files
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.report import facts, page

OPTIONS: Options = {
    "people": Option(8, "people shown per data set", low=0, high=50),
    "images_per_person": Option(8, "max images shown per person", low=1, high=20),
    "queries": Option(12, "example queries shown per test set", low=0, high=50),
}


def stage(before: Sequence[Stage]) -> Stage:
    """Returns the stage, which shows the stages `before` it."""
    does = {one.name: one.does for one in before}
    return Stage(
        "report",
        "shows the run on one page",
        OPTIONS,
        lambda config, workdir: run(config, workdir, does),
        reads=tuple(does),
    )


def run(config: ConfigDict, workdir: Workdir, does: Mapping[str, str]) -> dict:
    """Writes WORKDIR/report/index.html and WORKDIR/report/config.py.

    does: what each stage that can be shown does, in the order of the pipeline.

    Returns their digests and the counts of every stage: the person images read, all of which the
    page counts, and none rejected.
    """
    report_page = page.assemble(workdir, config.to_dict(), does)
    outputs = {
        "index.html": report_page.html.encode("utf-8"),
        "config.py": facts.config_file(report_page.config).encode("utf-8"),
    }
    for name, data in outputs.items():
        files.write_bytes_atomic(workdir.dir("report") / name, data)
    digests = {name: files.sha256(data) for name, data in outputs.items()}
    counts = {"records_in": report_page.images, "records_out": report_page.images, "rejected": 0}
    return {"outputs": digests} | counts
