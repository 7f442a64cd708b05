import base64
import html.parser
import io
import json
import re
import runpy
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxtbpr import stages
from jaxtbpr.core import files, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.images import open_image
from jaxtbpr.report import facts, page, pictures
from tests.datasets.folders import deep_bytes, turned_bytes
from tests.report import fixture

DOES = {name: stage.does for name, stage in stages.STAGES.items()}

SECTIONS = {
    "results", "queries", "failures", "stages", "prompts", "people", "captions", "rejected",
    "training", "repeat",
}  # fmt: skip
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Reader(html.parser.HTMLParser):
    """The elements of a page, the text in it, and tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._open, self.wrong = [], [], [], []
        self.feed(text)
        self.wrong += self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def make(run, **changed):
    """Runs the stage and returns the page's text."""
    run.dir("report").mkdir(exist_ok=True)
    fixture.STAGE.run(fixture.config(**changed), run)
    return (run.dir("report") / "index.html").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def text(finished):
    return make(finished)


def sections(text):
    return {attrs["id"] for attrs in Reader(text).all("section")}


def test_a_whole_run_has_every_section_and_each_link_leads_to_one(text):
    assert sections(text) == SECTIONS
    links = {attrs["href"].removeprefix("#") for attrs in Reader(text).all("a")}
    assert links == SECTIONS


def test_it_tells_how_many_captions_the_model_read_in_part(text):
    assert re.search(r"synthetic/test: 3 of \d+ captions are cut at 48 tokens", text)


def test_tags_match_and_ids_are_unique(text):
    read = Reader(text)
    ids = [attrs["id"] for _, attrs in read.elements if "id" in attrs]
    shared = {name for name in ids if ids.count(name) > 1}
    assert read.wrong == []
    # Matplotlib names a clip path or a mark by the hash of its shape: one name, one shape.
    for name in shared:
        shapes = re.findall(rf'<(?:path|clipPath) id="{name}".*?(?:</clipPath>|/>)', text, re.S)
        assert len(set(shapes)) == 1


def test_text_of_others_is_escaped_everywhere(text):
    assert "<script" not in text
    assert "<b>coat" not in text
    assert fixture.HOSTILE in " ".join(Reader(text).words)
    assert any(fixture.HOSTILE in attrs["alt"] for attrs in Reader(text).all("img"))


def test_nothing_is_loaded_from_elsewhere(text):
    for _, attrs in Reader(text).elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'; img-src data:" in text
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_the_page_is_of_moderate_size(text):
    assert 50_000 < len(text.encode()) < 10_000_000


def test_the_same_run_in_another_folder_gives_the_same_bytes(tmp_path, text):
    assert make(fixture.write(tmp_path)) == text


def test_the_digests_are_those_of_the_files(finished, text):
    result = fixture.STAGE.run(fixture.config(), finished)
    for name, digest in result["outputs"].items():
        assert files.sha256((finished.dir("report") / name).read_bytes()) == digest
    assert (result["records_in"], result["rejected"]) == (40, 0)


def test_headline_and_tables_show_the_numbers_next_to_chance(text):
    words = re.sub(r"\s+", " ", " ".join(Reader(text).words))
    assert "the right person first 52.3% of the time" in words
    assert re.search(r"synthetic/test 52\.3 78\.1 88\.4 56\.1 40\.2 16 16 4", words)
    assert re.search(r"by chance 25\.0 ", words)
    assert re.search(r"best on validation 4 52\.3", words)
    assert re.search(r"last 5 51\.0", words)
    assert re.search(r"best on test 3 53\.4", words)


def test_right_images_have_a_tick_and_wrong_ones_a_cross(finished):
    text = make(finished, queries=50)
    rows = re.findall(r'<article class="query">(.*?)</article>', text, re.S)
    examples = files.read_json(finished.dir("evaluate") / "synthetic__test.json")["examples"]
    for row, example in zip(rows, examples, strict=False):
        hits = re.findall(r'<figure class="hit (\w+)"[^>]*>(.*?)</figure>', row, re.S)
        assert len(hits) == len(example["ranked"])
        for (mark, inner), hit in zip(hits, example["ranked"], strict=True):
            said = "right" if hit["right"] else "wrong"
            shape = "M4.2 8.4l2.6" if hit["right"] else "M5 5l6 6"
            assert mark == said
            assert f"{said}: image {hit['image_id']}" in inner
            assert shape in inner
            assert f'<span class="unseen">, {said}</span>' in inner


def test_the_hardest_queries_end_with_their_right_image_and_its_rank(finished, text):
    part = text[text.index('<section id="failures">') : text.index('<section id="stages">')]
    hardest = files.read_json(finished.dir("evaluate") / "synthetic__test.json")["hardest"]
    rows = re.findall(r'<article class="query">(.*?)</article>', part, re.S)
    assert len(rows) == len(hardest) > 0
    for row, one in zip(rows, hardest, strict=True):
        assert f"First match at rank {one['first_match_rank']}" in row
        marks = re.findall(r'<figure class="hit (\w+)"', row)
        assert len(marks) == 10
        assert "right" in marks
        assert f"{one['query_image_id']}, person {one['query_identity_name']}" in row


def test_a_run_of_an_older_state_has_no_section_on_failures(finished, tmp_path):
    run = copy(finished, tmp_path, *fixture.WRITTEN, "build", "train", "evaluate")
    path = run.dir("evaluate") / "synthetic__test.json"
    detail = files.read_json(path)
    del detail["hardest"]
    files.write_json_atomic(path, detail)
    (run.dir("evaluate") / "synthetic__test.queries.jsonl").unlink()
    assert sections(make(run)) == SECTIONS - {"failures"}


def test_what_a_run_lacks_is_left_out(finished, tmp_path):
    run = copy(finished, tmp_path, "prompts", "generate", "filter", "augment", "caption", "build")
    assert sections(make(run)) == SECTIONS - {"results", "queries", "failures", "training"}


def test_a_run_of_real_data_shows_the_built_sets(finished, tmp_path):
    run = copy(finished, tmp_path, "build", "train", "evaluate")
    text = make(run)
    assert sections(text) == SECTIONS - {"rejected", "prompts"}
    assert "The prompt" not in text
    assert len(Reader(text).all("img")) > 40
    assert 'class="gone"' not in text


def test_a_run_of_prompts_only_shows_no_pictures(finished, tmp_path):
    text = make(copy(finished, tmp_path, "prompts"))
    assert sections(text) == {"stages", "prompts", "people", "repeat"}
    assert "people described" in text
    assert "a person in a red coat" in text
    assert Reader(text).all("img") == []


def test_a_run_of_nothing_still_has_a_page(tmp_path):
    assert sections(make(fixture.workdir(tmp_path, chosen=()))) == {"repeat"}


def test_training_without_evaluation_shows_recall_by_epoch(finished, tmp_path):
    text = make(copy(finished, tmp_path, "build", "train"))
    assert "training" in sections(text)
    assert "R@1 by epoch" in text


def test_no_people_and_no_queries_can_be_asked_for(finished, tmp_path):
    run = copy(finished, tmp_path, *stages.USUAL_STAGES[:-1])
    text = make(run, people=0, queries=0)
    assert sections(text) == SECTIONS - {"people", "queries"}
    assert set(attrs["href"] for attrs in Reader(text).all("a")) <= {
        f"#{s}" for s in sections(text)
    }


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_a_damaged_image_shows_a_placeholder(finished, tmp_path, damage):
    run = copy(finished, tmp_path, "prompts", "generate", "filter", "augment", "caption")
    paths = sorted((run.root / "generate" / "images").iterdir())
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"no image")
    text = make(run)
    assert Reader(text).all("img") == []
    assert text.count('class="gone" role="img"') > 10


def test_a_gone_data_set_shows_placeholders(finished, tmp_path):
    run = copy(finished, tmp_path, *stages.USUAL_STAGES[:-1])
    (run.dir("build") / "synthetic").rmtree()
    text = make(run)
    assert "person described: image 00000002 (the image could not be read)" in text


def test_a_damaged_manifest_is_named(finished, tmp_path):
    run = copy(finished, tmp_path, "prompts", "generate")
    shard = run.dir("generate") / "records-00000-of-00001.jsonl"
    shard.write_text(shard.read_text().replace("red", "tan"))
    with pytest.raises(UserError, match="not what was committed"):
        make(run)


def test_changed_keys_are_marked_and_others_are_not(text):
    marked = re.findall(r'<dt class="changed"><b>(.*?)</b>', text)
    assert marked == ["learning_rate"]
    assert "train <small>1 changed</small>" in text
    assert "<dt>batch_size</dt>" in text


def test_the_page_tells_when_where_and_how_the_run_was_made(text):
    words = re.sub(r"\s+", " ", " ".join(Reader(text).words))
    for value in fixture.RAN.values():
        assert value in words


def test_the_model_has_its_real_sizes(text):
    words = re.sub(r"\s+", " ", " ".join(Reader(text).words))
    assert "image tower 5 blocks of 128 channels, 4 heads" in words
    assert "text tower 3 blocks of 128 channels" in words
    assert "48 tokens of 2,048" in words


def test_stages_of_one_command_are_told_together_with_the_devices():
    ran = fixture.RAN
    with_devices = ran | {"machine": ran["machine"] + ", 1 x H200", "date": "later"}
    other = ran | {"command": "another"}
    told = {"build": ran, "train": with_devices, "evaluate": other}
    rows = facts.runs({name: {"ran": one} for name, one in told.items()} | {"old": {}})
    assert rows == [
        with_devices | {"stages": ["build", "train"]},
        other | {"stages": ["evaluate"]},
    ]


def test_what_was_set_aside_is_told_by_reason_with_examples(text):
    part = text[text.index('id="rejected"') : text.index('id="training"')]
    assert "2 by filter" in part
    assert "is blank: contrast …" in part
    assert "00000001: generate/images/00000001.png is blank: contrast 0.3" in part
    assert len(Reader(part).all("img")) == 2


def test_the_model_has_never_seen_the_people_is_said_only_where_it_is_true(
    finished, tmp_path, text
):
    assert "people whom the model has never seen" in text
    run = copy(finished, tmp_path, "build", "train", "evaluate")
    commit = files.read_json(run.dir("build") / "commit.json")
    files.write_json_atomic(run.dir("build") / "commit.json", commit | {"seen": {"synthetic": 2}})
    doubtful = make(run)
    assert "never seen" not in doubtful
    assert "This is no test on unseen people: 2 of the " in doubtful


def test_what_build_says_of_folders_is_shown(finished, tmp_path, text):
    run = copy(finished, tmp_path, "build")
    commit = files.read_json(run.dir("build") / "commit.json")
    said = {"real": ["images of one colour, which show nobody: 1 (a.jpg)."], "synthetic": []}
    files.write_json_atomic(run.dir("build") / "commit.json", commit | {"remarks": said})
    assert "<li>real: images of one colour, which show nobody: 1 (a.jpg).</li>" in make(run)
    assert "Remarks of stage build" not in text


@pytest.mark.parametrize("data", [turned_bytes(1), deep_bytes(1)])
def test_thumbnails_show_what_the_model_sees(data):
    shown = base64.b64decode(pictures.thumbnail(data).partition(",")[2])
    seen = open_image(data)
    small = Image.open(io.BytesIO(shown))
    assert small.size == seen.size
    assert np.abs(np.mean(small) - np.mean(seen)) < 3


def test_line_separators_in_the_name_of_a_rejected_image_are_no_line_ends(finished, tmp_path):
    run = copy(finished, tmp_path, "build")
    name = "a\u2028b\u0085.jpg"
    line = json.dumps({"id": name, "reason": "has no caption"}, ensure_ascii=False) + "\n"
    (run.dir("build") / "rejected.jsonl").write_text(line)
    assert f"{name}: has no caption" in make(run)


def test_how_even_the_prompts_are_is_shown(text):
    words = " ".join(" ".join(Reader(text).words).split())
    assert "1.25% of the prompts repeat another" in words
    assert "hair colour 96.4%" in words
    assert "hair colour 6 7 1,234" in words


def test_what_models_answered_is_told_and_no_attributes_are(finished, tmp_path):
    run = copy(finished, tmp_path, "prompts", "generate", "filter", "augment", "caption")
    commit = files.read_json(run.dir("caption") / "commit.json")
    commit["recipe"]["config"]["caption.engine"] = "openai"
    commit["answers"] = {"captions": 1234, "min_words": 9, "max_words": 41, "vocabulary": 567}
    commit["answers"] |= {"said_once": 89, "given_up": 3, "models": {"a/<b>": 1234}}
    commit["answers"] |= {"rejected": {"cut off": 17}}
    files.write_json_atomic(run.dir("caption") / "commit.json", commit)
    page_text = make(run)
    words = " ".join(" ".join(Reader(page_text).words).split())
    assert "1,234 captions of 9 to 41 words. Their vocabulary has 567 words, 89 of them" in words
    assert "a/<b> 1,234" in words
    assert "cut off 17" in words
    assert "How often a caption names an attribute" not in words
    assert Reader(page_text).wrong == []


def test_the_config_file_is_valid_and_repeats_what_was_set(finished, text):
    given = runpy.run_path(finished.dir("report") / "config.py")["get_config"]()
    options.validate(given, stages.OPTIONS)
    assert (given.train.batch_size, given.caption.mention.hair) == (128, 0.7)
    assert given.stages == stages.USUAL_STAGES
    assert given.model == stages.default_config().model
    assert "mention.hair" in text


def test_the_config_file_takes_any_text():
    folder = "a ''' \\n \"b\" ü\\"
    scope = {}
    exec(facts.config_file({"seed": 3, "build": {"folders": {"mine": folder}}}), scope)
    assert scope["get_config"]().build.folders.mine == folder


def test_another_seed_shows_other_people(finished, text):
    own = {"seed": 5, "report": fixture.config(people=3).report.to_dict()}
    other = page.assemble(finished, own, DOES).html
    again = page.assemble(finished, own, DOES).html
    names = re.compile(r"<h3>(\d{8})</h3>")
    assert names.findall(other) != names.findall(text)[:3]
    assert other == again


def copy(run, folder, *names):
    """Returns a copy of a run that has only the given stages, and all images."""
    for stage_name in names:
        shutil.copytree(run.dir(stage_name), folder / stage_name)
    if "prompts" in names[:1] and len(names) > 1:
        shutil.copytree(run.root / "generate", folder / "generate", dirs_exist_ok=True)
    chosen = [name for name in names if name in fixture.WRITTEN]
    return fixture.workdir(folder, chosen)
