"""The record of a person image: its fields, who writes them, and what follows from that.

A record is a line of a manifest (`core/manifest.py`), a dict of what JSON can hold. A stage that
adds a field gives it a row here; what denoise drops with a caption, what an edit inherits from
its base image and what the built set keeps follow from the rows.
"""

import dataclasses
import json
from collections.abc import Sequence

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Record


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a record.

    type: of its JSON value. stage: which writes it first. what: one phrase.
    per_caption: "" for no list; "itself" where it is a list with an entry for each caption, else
      the key of such a list in it.
    is_inherited: whether an edit has the field of its base image (until a stage writes its own).
    is_provenance: whether the built set keeps it in an image's provenance.
    in_set: whether it is a field of the built set and of its index.
    """

    name: str
    type: str
    stage: str
    what: str
    per_caption: str = ""
    is_inherited: bool = True
    is_provenance: bool = False
    in_set: bool = False


FIELDS = (
    Field("id", "string", "prompts", "name of the image; an edit's is its base's, - and a number"),
    Field("identity", "string", "prompts", "name of the person"),
    Field("split", "string", "prompts", "train, val or test"),
    Field("prompt", "string", "prompts", "what asks for the image", is_provenance=True),
    Field("prompt_number", "integer", "prompts", "which prompt, where one has several images"),
    Field("tokens", "integer", "prompts", "length of the prompt", is_inherited=False),
    Field("dropped_clauses", "list", "prompts", "clauses left out to fit", is_inherited=False),
    Field("prompt_kind", "string", "prompts", "of a rough prompt: appearance, profession, ..."),
    Field("rough_prompt", "string", "prompts", "the prompt before a language model enriched it"),
    Field("descriptors", "object", "prompts", "descriptor -> the word drawn for it"),
    Field("source_caption", "string", "prompts", "the real caption of which the prompt is made"),
    Field("model", "string", "prompts", "language model that enriched the prompt"),
    Field("rejected_answers", "list", "prompts", "why its other answers were rejected"),
    Field("subject", "string", "prompts", "token and class of a fine-tuned subject"),
    Field("seed", "integer", "prompts", "of the run", is_provenance=True),
    Field("source", "string", "generate", "engine that made the image"),
    Field("edits", "list", "generate", "what was changed; [] for a base image", is_provenance=True),
    Field("attributes", "object", "prompts", "slot -> value, as drawn", is_provenance=True),
    Field("scene", "object", "augment", "slots that an edit changed, without attributes"),
    Field("image", "object", "generate", "path, sha256, height and width in pixels, traits"),
    Field("generation", "object", "generate", "sampler, steps, guidance, hash of the model, ...",
          is_inherited=False, is_provenance=True),
    Field("captions", "list", "caption", "sentences", per_caption="itself"),
    Field("caption_noise", "list", "caption", "mistakes: [slot, true value, value written or null]",
          per_caption="itself"),
    Field("caption_source", "list", "caption", "model, instruction, pattern, rejected answers",
          per_caption="itself"),
    Field("rejected_captions", "list", "caption", "captions without a usable answer, and why"),
    Field("facts", "object", "caption", "shown: what can be seen; mentioned: by each caption",
          per_caption="mentioned", is_provenance=True, in_set=True),
    Field("caption_weights", "list", "denoise", "how much each caption counts in training",
          per_caption="itself", in_set=True),
    Field("rejected", "object", "any", "stage and reason, where it is not to be used"),
)  # fmt: skip

_ADVICE = {
    "image": "add stage 'generate' to config.stages",
    "attributes": "set config.prompts.engine to 'template', or this stage's to another engine",
}


def keep_captions(record: Record, kept: Sequence[bool]) -> Record:
    """Returns `record` with only those captions, and with what goes with each.

    kept: for each caption whether it stays. Raises ValueError where it has another length.
    """

    def chosen(values: list) -> list:
        return [value for value, keep in zip(values, kept, strict=True) if keep]

    out = dict(record)
    for field in FIELDS:
        if field.per_caption and field.name in record:
            value, key = record[field.name], field.per_caption
            out[field.name] = (
                chosen(value) if key == "itself" else value | {key: chosen(value[key])}
            )
    return out


def edit_of(record: Record, number: int) -> Record:
    """Returns the record of the edit `number` of a base image, with the fields that it inherits."""
    left_out = {field.name for field in FIELDS if not field.is_inherited}
    taken = {name: value for name, value in record.items() if name not in left_out}
    return taken | {"id": f"{record['id']}-{number}"}


def provenance(record: Record) -> str:
    """Returns an image's provenance, as the JSON text that the built set keeps."""
    names = [field.name for field in FIELDS if field.is_provenance and field.name in record]
    return json.dumps({name: record[name] for name in names}, ensure_ascii=False)


def set_fields(record: Record) -> Record:
    """Returns the fields that the built set has as they are."""
    return {field.name: record[field.name] for field in FIELDS
            if field.in_set and field.name in record}  # fmt: skip


def require(record: Record, name: str, reader: str, advice: str = "") -> None:
    """Raises UserError where `reader` ("stage 'filter'") is given a record without field `name`.

    advice: what to do then; "": what is usual for the field.
    """
    if name not in record:
        needed = "images" if name == "image" else name
        raise UserError(
            f"{reader} needs {needed}, but record {record['id']} has none; "
            f"{advice or _ADVICE[name]}."
        )
