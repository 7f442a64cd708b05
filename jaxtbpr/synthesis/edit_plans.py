"""What engine `edit` of stage augment is to change in an image, and with which prompts.

A kind of edit is a slot of the scene: background, weather, style or posture. `augment.source` says
what the prompts are: "paper", the sentences of SynTBPR (arXiv:2503.22171, supplement), which name
the scene and, in weather and style, repeat the image's caption; "record", the record's own prompt
and the same with the slot exchanged; "caption", its first caption, and that with the change in
front.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.record import edit_of
from jaxtbpr.diffusion.editing.prompts import Target
from jaxtbpr.prompts import template

METHODS = ("prompt_to_prompt", "masactrl", "inversion")  # of editing.editor, slow to import
KINDS = ("background", "weather", "style", "posture")
SOURCES = ("paper", "record", "caption")
# Settings that edits must have in common to share an inversion and a reconstruction.
SHARED = ("method", "guidance_scale", "noise_map_scale", "gradient_scale", "first_step",
          "first_block")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Planned:
    """One edit. record: what it is to become, rejected where it cannot be made.

    source: the prompt that the image is inverted with; target: the prompt and how its attention is
    edited; source_words, words: of a local blend, () without.
    """

    record: Record
    source: str = ""
    target: Target | None = None
    source_words: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def kind_options(targets: Sequence[str], **defaults: Any) -> Options:
    """Returns the options of one kind; defaults: those that differ between kinds."""
    usual = {"method": "prompt_to_prompt", "self_replace": 0.6, "weight": 3.0, "blend": False}
    default = usual | defaults
    return {
        "method": Option(
            default["method"],
            "how: with the source's attention maps (prompt_to_prompt), its keys and values "
            "(masactrl), or by the prompt alone (inversion)",
            choices=METHODS,
        ),
        "count": Option(1, "edits of this kind of each image; 0 = none", low=0, high=19),
        "targets": Option(tuple(targets), "values of the scene's slot to draw from"),
        "cross_replace": Option(
            0.8, "part of the steps with the source's attention to words", low=0.0, high=1.0
        ),
        "self_replace": Option(
            default["self_replace"],
            "part of the steps with the source's self-attention",
            low=0.0,
            high=1.0,
        ),
        "weight": Option(default["weight"], "weight of the new words", low=0.0, high=100.0),
        "blend": Option(default["blend"], "whether only the place of these words changes"),
        "first_step": Option(4, "step from which masactrl acts", low=0),
        "first_block": Option(10, "transformer block from which masactrl acts", low=0),
        "guidance_scale": Option(
            10.0, "how closely the edit follows its prompt", low=1.0, high=100.0
        ),
        "noise_map_scale": Option(
            10.0, "how closely the source follows its inversion; 0 = not led", low=0.0, high=1000.0
        ),
        "gradient_scale": Option(
            5000.0, "scale of that gradient, for latents of 64 x 64 x 4", low=0.0
        ),
    }


def groups(kinds: Mapping[str, Mapping[str, Any]], source: str) -> dict[tuple, list[str]]:
    """Returns the kinds that share an inversion, by what they share; those without edits are out.

    kinds: the values of the options of each; source: of SOURCES.
    """
    shared: dict[tuple, list[str]] = {}
    for slot, options in kinds.items():
        if options["count"]:
            # The paper's prompts of the source differ between kinds, but for weather and style.
            prompt = slot if source == "paper" and slot in ("background", "posture") else ""
            key = (*(options[name] for name in SHARED), prompt)
            shared.setdefault(key, []).append(slot)
    return shared


def plan(
    record: Record, kinds: Mapping[str, Mapping[str, Any]], source: str, seed: int
) -> dict[str, list[Planned]]:
    """Returns the edits of a record, `count` of each kind, numbered through.

    The targets are drawn by the record's id, each once, and none that the image shows already.
    """
    number, planned = 0, {}
    for slot, options in kinds.items():
        shown = (record.get("attributes") or record.get("scene") or {}).get(slot)
        left = [value for value in options["targets"] if value != shown]
        order = seeds.rng(seed, "augment", record["id"], slot).permutation(len(left))
        planned[slot] = []
        for k in range(options["count"]):
            number += 1
            edit = edit_of(record, number) | {"edits": [slot]}
            if k >= len(left):
                reason = f"augment.kinds.{slot}.targets has only {len(left)} that it does not show"
                planned[slot].append(Planned(reject(edit, "augment", reason)))
            else:
                planned[slot].append(_planned(record, edit, slot, left[order[k]], options, source))
    return planned


def _planned(record, edit, slot, value, options, source) -> Planned:
    shown, scene = record.get("attributes"), {slot: value}
    if shown:
        looks = attributes.normalise(shown | scene)
        edit |= {"attributes": looks, "prompt": template.prompt(looks, record.get("subject", ""))}
    else:
        prompt = template.add_scene(record.get("prompt", ""), scene)
        edit |= {"scene": record.get("scene", {}) | scene, "prompt": prompt}
    text, needed = _text(record, source)
    if not text and not (source == "paper" and slot in ("background", "posture")):
        return Planned(reject(edit, "augment", f"it has no {needed} to edit (augment.source)"))
    before, after, old, new = _prompts(slot, value, text, edit, source, shown or {})
    is_swap = len(before.split()) == len(after.split()) and slot == "background"
    target = Target(
        after,
        "replace" if is_swap else "refine",
        options["cross_replace"],
        options["self_replace"],
        {new: options["weight"]} if new else {},
    )
    words = ((old,), (new,)) if options["blend"] and old and new else ((), ())
    return Planned(edit, before, target, *words)


def _text(record: Record, source: str) -> tuple[str, str]:
    """The record's own words, and what they are."""
    if source == "record":
        return record.get("prompt", ""), "prompt"
    captions = record.get("captions") or [record.get("prompt", "")]
    return captions[0].rstrip(". "), "caption"


def _prompts(slot, value, text, edit, source, shown) -> tuple[str, str, str, str]:
    """The prompts of source and target, and the words of both that differ, "" for none."""
    phrase = template.scene_words(slot, value)
    if source == "record":
        old = template.scene_words(slot, shown[slot]) if slot in shown else ""
        return text, edit["prompt"], old, phrase
    if source == "paper" and slot == "background":
        return "a person in the street", f"a person in the {value}", "street", value
    if source == "paper" and slot == "posture":
        return "a person", f"a person, {phrase}", "", phrase
    return text, f"{template.scene_phrase(slot, value)}, {text}", "", phrase
