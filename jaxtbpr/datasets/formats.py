"""Every on-disk form of a text-based person retrieval set, detected from its files.

`detect` says which form a folder has, `read` yields its images. To add a form: write a reader
(`folder, files, paths -> Iterator[Entry]`) and add a row to `FORMATS`; the first match wins.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import (
    coco,
    finding,
    leftover,
    own_outputs,
    pretraining,
    published,
    reid_json,
    reid_sets,
    roles,
    sidecar,
    syntbpr,
    tables,
)
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.image_paths import ImagePaths

__all__ = ["FORMATS", "Entry", "Format", "detect", "image_paths", "read"]

Reader = Callable[[epath.Path, Iterable[epath.Path], ImagePaths], Iterator[Entry]]


@dataclasses.dataclass(frozen=True)
class Format:
    """One on-disk form.

    looks_for: the files that identify it. find: returns its annotation files in a folder, or [].
    roots: where its images are, relative to the folder. known: the published set, if only one has
    this form. one_set: several annotation files must differ by their split only. captioned:
    whether it has captions, without which nothing can be built of it.
    """

    name: str
    title: str
    looks_for: str
    find: Callable[[epath.Path], list[epath.Path]]
    reader: Reader
    roots: tuple[str, ...] = ("imgs",)
    shorten: bool = False
    known: str | None = None
    one_set: bool = False
    captioned: bool = True


# Forms into which loaders bring any of the published sets.
SHARED_FORMS = ("rasa", "tbps_clip", "aptm", "reid_json")
_ANYWHERE = ("imgs", "images", "")

FORMATS = (
    Format("cuhk_pedes", "CUHK-PEDES", "reid_raw.json or caption_all.json, beside imgs/",
           finding.named("reid_raw.json", "caption_all.json"), reid_json.read_cuhk_pedes,
           known="CUHK-PEDES"),
    Format("icfg_pedes", "ICFG-PEDES", "ICFG-PEDES.json or ICFG_PEDES.json, beside imgs/",
           finding.named("ICFG-PEDES.json", "ICFG_PEDES.json"), reid_json.read_records,
           known="ICFG-PEDES"),
    Format("rstpreid", "RSTPReid", "data_captions.json, beside imgs/",
           finding.named("data_captions.json"), reid_json.read_records, known="RSTPReid"),
    Format("rasa", "RaSa / MARS", "processed_data/train.json, val.json, test.json, beside imgs/",
           finding.each("processed_data/train.json", "processed_data/val.json",
                        "processed_data/test.json"), reid_json.read_records),
    Format("tbps_clip", "TBPS-CLIP", "train_reid.json and test_reid.json",
           finding.each("train_reid.json", "val_reid.json", "test_reid.json"),
           reid_json.read_records, _ANYWHERE, shorten=True),
    Format("synth_pedes", "SYNTH-PEDES", "synthpedes_dataset.json, beside Part1/ ... Part11/",
           finding.named("synthpedes_dataset.json"), pretraining.read_synth_pedes,
           ("", "imgs", "images"), shorten=True, known="SYNTH-PEDES"),
    Format("mals", "MALS", "g_4x_attrs.json, g_c_g_a_<n>_attrs.json, g_i_g_a_<n>_attrs.json",
           finding.globbed("g_*_attrs.json", "gene_attrs/g_*_attrs.json"),
           pretraining.read_one_identity_each, ("", "images", "imgs"), shorten=True, known="MALS"),
    Format("luperson_mllm", "LUPerson-MLLM", "Ts-qwen.json, Td-qwen.json, Ts-shikra.json, "
           "Td-shikra.json (dictionaries image name -> caption), or these in caption/",
           finding.dictionaries("", "caption", luperson=True), pretraining.read_luperson_mllm,
           ("LUPerson-MLLM", *_ANYWHERE), shorten=True, known="LUPerson-MLLM"),
    Format("caption_dictionary", "dictionary of captions", "a json object image name -> "
           "caption (or a list of captions)", finding.dictionaries(""),
           pretraining.read_dictionaries, ("", "imgs", "images"), shorten=True, one_set=True),
    Format("sda", "SDA", "json arrays of image, caption, phrases, boxes",
           finding.keyed({"image", "caption", "phrases"}), pretraining.read_one_identity_each,
           _ANYWHERE, shorten=True, known="SDA"),
    Format("mals", "MALS", "json arrays of image, caption, image_id, label",
           finding.keyed({"image", "caption", "image_id", "label"}, listed="label"),
           pretraining.read_one_identity_each, ("", "images", "imgs"), shorten=True, known="MALS"),
    Format("aptm", "APTM fine-tuning files", "<set>_train.json, <set>_val.json, <set>_test.json "
           "of image, caption, image_id",
           finding.keyed({"image", "caption", "image_id"}), pretraining.read_aptm_finetune,
           _ANYWHERE, shorten=True, one_set=True),
    Format("syntbpr_images", "SynTBPR text-to-image output", "a json array of id, image_path, "
           "caption with files called images_<number>_<seed>_base.png",
           finding.keyed({"id", "image_path", "caption"}), syntbpr.read_images,
           _ANYWHERE, shorten=True),
    Format("syntbpr_captions", "SynTBPR captioning output", "a json array of image_path, captions, "
           "<Model>_question",
           finding.keyed({"image_path", "captions"}, ending="_question"), syntbpr.read_captions,
           _ANYWHERE, shorten=True),
    Format("reid_json", "CUHK-PEDES-like json", "a json array of split, id, file_path, captions "
           "(as UFine6926)",
           finding.keyed({"id", "captions", "split"}), reid_json.read_records,
           _ANYWHERE, shorten=True, one_set=True),
    Format("syntbpr_edit_input", "SynTBPR editing input", "a json array of id, file_path, captions",
           finding.keyed({"id", "file_path", "captions"}), syntbpr.read_edit_input,
           _ANYWHERE, shorten=True),
    Format("coco", "COCO captions or Karpathy's split", "a json object of images and annotations "
           "(captions_train2017.json), or of images with sentences; also in annotations/",
           finding.coco_captions, coco.read, _ANYWHERE, shorten=True),
    Format("table", "plain folder with a table", "a .csv, .tsv, .jsonl or .json table with "
           "columns file_path (or image, image_path) and caption (or captions), if known identity "
           "and split, or in train/ and test/ (imagefolder); .parquet with images; WebDataset .tar",
           finding.tabular, tables.read_tables, ("", "imgs", "images"), shorten=True, one_set=True),
    Format("sidecar", "images with a text beside each", "0001.jpg with 0001.txt (or .json), also "
           "in train/ and test/, and img2dataset's 00000/",
           sidecar.find, tables.read_tables, ("",)),
    Format("identities", "Market-1501 or MSMT17 (people without captions)", "bounding_box_train/, "
           "query/, bounding_box_test/; or list_train.txt, list_query.txt, ...",
           reid_sets.find, reid_sets.read, ("",), captioned=False),
)  # fmt: skip


def detect(folder: epath.PathLike) -> Format:
    """Returns the form of `folder`.

    Raises InputError, with the nearest match and what to do, where none fits.
    """
    folder = epath.Path(folder)
    form = None
    if folder.is_dir():
        form = None if own_outputs.is_part_of_run(folder) else _match(folder)
        if form is None and (explanation := own_outputs.explain(folder)):
            raise InputError(explanation)
    if form is None:
        raise finding.not_recognised(folder, _match)
    return form


def list_known() -> str:
    """Returns the forms that are read and the files that identify each, one a line."""
    return "\n".join(f"  {form.title}: {form.looks_for}" for form in FORMATS)


def _match(folder: epath.Path) -> Format | None:
    return next((form for form in FORMATS if form.find(folder)), None)


def annotation_files(folder: epath.PathLike, form: Format) -> list[epath.Path]:
    """Returns the annotation files of a folder of this form.

    Raises InputError where there are none, or where they belong to several sets.
    """
    files = form.find(epath.Path(folder))
    if not files:
        raise InputError(f"{folder} is not {form.title} ({form.name}): that is {form.looks_for}.")
    prefixes = sorted({reid_json.set_prefix(file) for file in files})
    if form.one_set and len(prefixes) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"{folder} holds annotations of {len(prefixes)} sets ({names}), whose identities would "
            "be mixed; put each set into a separate folder."
        )
    return files


def leftovers(folder: epath.PathLike, form: Format) -> list[leftover.Leftover]:
    """Returns the annotation-like files of a folder of this form that are not read, and why."""
    folder = epath.Path(folder)
    taken = form.find(folder)
    others = {
        file: f"{other.title} ({other.name})"
        for other in reversed(FORMATS)
        for file in other.find(folder)
    }
    return leftover.leftovers(folder, taken, others)


def remarks(folder: epath.PathLike, form: Format) -> list[str]:
    """Returns how a user's files, or a set of people, are read: one sentence each."""
    if not form.captioned:
        return reid_sets.remarks(form.find(epath.Path(folder)))
    is_known = form.name in ("aptm", "reid_json")  # of which nobody expects all keys to be used
    users = ("table", "sidecar", "coco", "syntbpr_edit_input", "caption_dictionary")
    if not is_known and form.name not in users:
        return []
    place = epath.Path(folder)
    if form.name == "coco":
        file_roles = coco.file_roles(form.find(place))
        return roles.remarks(file_roles, file_roles, reid_json.file_split)
    taken = form.find(place)  # a dictionary has no columns
    if form.name == "aptm":
        file_roles = roles.json_roles(taken, pretraining.APTM_PERSON)
    else:
        file_roles = tables.table_roles(taken)
    if is_known or own_outputs.is_export(place):
        file_roles = {file: dataclasses.replace(one, unused=()) for file, one in file_roles.items()}
    split_of = functools.partial(tables.table_split, place)
    sentences = roles.remarks(taken, file_roles, split_of) + sidecar.remarks(place)
    return sentences if form.name == "sidecar" else sentences + roles.same_split(taken, split_of)


def image_paths(
    folder: epath.PathLike, form: Format, images: epath.PathLike | None = None
) -> ImagePaths:
    """Returns where the images of a form are looked for. images: a folder to use instead."""
    roots = form.roots if images is None else (str(epath.Path(images).absolute()),)
    return ImagePaths(folder, roots, shorten=form.shorten or images is not None)


def read(
    folder: epath.PathLike,
    format: Format | str | None = None,
    *,
    images: epath.PathLike | None = None,
) -> Iterator[Entry]:
    """Yields the images of a data set with their captions, identities and splits.

    format: its form or the name of it; None detects it. images: the folder of the images where it
    is not the form's usual one. Missing images are yielded too, and records that cannot be used
    carry a `problem`. Raises InputError at once where the folder is not of the form, and while
    reading where a file is broken.
    """
    form = format if isinstance(format, Format) else get(folder, format)
    paths = image_paths(folder, form, images)
    return form.reader(epath.Path(folder), annotation_files(folder, form), paths)


def get(folder: epath.PathLike, name: str | None = None) -> Format:
    """Returns the form called `name`, or without a name that of `folder`. Raises InputError."""
    if name is None:
        return detect(folder)
    same = [form for form in FORMATS if form.name == name]
    if not same:
        names = ", ".join(sorted({form.name for form in FORMATS}))
        raise InputError(f"format={name!r} is not known; the formats are {names}.")
    return next((form for form in same if form.find(epath.Path(folder))), same[0])


def published_title(form: Format, names: Iterable[str], folder: epath.PathLike) -> str | None:
    """Returns the published set in a folder: by its form, its images' names or its name.

    Forms of a user's data and of generated data hold none, nor does what was exported here.
    """
    if own_outputs.is_export(folder):
        return None
    if form.known or form.name not in SHARED_FORMS:
        return form.known
    return published.set_of_names(names) or published.set_of_folder(epath.Path(folder).name)
