"""Zero-shot classification of person attributes with a CLIP.

  jaxtbpr zero-shot --model=runs/tiny_clip/train --workdir=runs/tiny_clip

prints the accuracy of each attribute on the drawn images of a run, whose attributes are known.
(Method: Radford et al., arXiv:2103.00020, section 3.1.)
"""

from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from jaxtbpr.core import attributes, command, files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.images import read
from jaxtbpr.core.progress import say
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.retrieval.judging.scoring import Scorer
from jaxtbpr.retrieval.saved import RESIZE_HELP, RESIZES, open_saved

# The prompt templates of each slot; "{}" stands for a value in words.
PROMPTS = {
    "sex": ("the {}", "a {} is seen"),
    "hair": ("a person with {}", "this person has {}"),
    "hair_colour": ("a person with {} hair", "this person has {} hair"),
    "upper": ("a person in a {}", "a person wearing a {}"),
    "upper_colour": ("a person in a {} top", "a person wearing a {} top"),
    "upper_pattern": ("a person in a {} top", "a person wearing a {} top"),
    "lower": ("a person in {}", "a person wearing {}"),
    "lower_colour": ("a person in {} bottoms", "a person wearing {} bottoms"),
    "shoes": ("a person wearing {}", "a person in {}"),
    "shoes_colour": ("a person wearing {} shoes", "a person in {} shoes"),
    "bag": ("a person with a {}", "a person carrying a {}"),
    "bag_colour": ("a person with a {} bag", "a person carrying a {} bag"),
    "hat": ("a person wearing a {}", "a person in a {}"),
    "hat_colour": ("a person wearing a {} hat", "a person in a {} hat"),
    "eyewear": ("a person with {}", "a person wearing {}"),
    "item": ("a person with a {}",),
    "item_colour": ("a person with a {} scarf", "a person with a {} umbrella"),
    "background": ("a person seen {}", "the person is standing {}"),
    "weather": ("a person seen {}", "the person is seen {}"),
    "style": ("a person {}", "the person is {}"),
    "posture": ("a person {}", "the person is {}"),
    "view": ("a person {}", "the person is {}"),
}
WORDS = {
    "sex": {"female": "woman", "male": "man"},
    "hair": {
        "short": "short hair", "long": "long hair", "ponytail": "a ponytail",
        "bun": "hair in a bun", "curly": "curly hair", "bald": "a bald head",
    },
    "lower": {"skirt": "a skirt", "long skirt": "a long skirt"},
    "background": {
        "street": "on a street", "park": "in a park", "shop": "in a shop",
        "station": "at a station", "car park": "in a car park", "forest": "in a forest",
        "desert": "in a desert", "beach": "on a beach", "airport": "at an airport",
        "farm": "on a farm", "lake": "by a lake",
    },
    "weather": {
        "clear": "on a clear day", "rain": "in the rain", "snow": "in the snow",
        "fog": "in the fog",
    },
    "style": {
        "photo": "shown in a photo", "oil painting": "painted in oil", "anime": "drawn as anime",
        "street photography": "shown in a street photograph",
        "van gogh": "painted like a Van Gogh", "pointillism": "painted in dots",
    },
    "posture": {"raising hands": "raising both hands", "thumb up": "giving a thumbs up"},
    "view": {
        "front": "facing the camera", "back": "seen from behind", "left": "seen from the side",
        "right": "seen from the side",
    },
}  # fmt: skip

STAGES = ("generate", "filter", "augment", "caption", "denoise")  # whose records have images


def sentences(slot: str, value: str) -> list[str]:
    """Returns the sentences that `slot` has `value`, one per template of PROMPTS."""
    words = WORDS.get(slot, {}).get(value, value)
    return [form.format(words) for form in PROMPTS[slot]]


def answers(slot: str) -> dict[str, str]:
    """Returns {value of the slot: the value that is answered for it}, without "none".

    Values of the same sentences are one answer: seen from the left or the right is "left".
    """
    first: dict[tuple[str, ...], str] = {}
    known = {**attributes.PERSON, **attributes.SCENE}[slot]
    return {
        value: first.setdefault(tuple(sentences(slot, value)), value)
        for value in known
        if value != "none"
    }


class ZeroShot:
    """Classifies the attributes of images with one model; all sentences are embedded once."""

    def __init__(self, scorer: Scorer):
        self._scorer = scorer
        every = [
            s
            for slot in PROMPTS
            for value in answers(slot).values()
            for s in sentences(slot, value)
        ]
        scorer.say_cut(list(dict.fromkeys(every)), "zero-shot", "sentences")
        self._choices = {slot: self._embed_slot(slot) for slot in PROMPTS}

    def features(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns the features float32 [N, D], of length 1, of encoded images."""
        return self._scorer.images(images)

    def probabilities(self, slot: str, features: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Returns (values of the slot, float32 [N, values]); rows sum to 1."""
        values, prototypes = self._choices[slot]
        logits = self._scorer.logit_scale * features @ prototypes.T
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return values, weights / weights.sum(axis=1, keepdims=True)

    def _embed_slot(self, slot: str) -> tuple[list[str], np.ndarray]:
        values = list(dict.fromkeys(answers(slot).values()))
        every = [sentence for value in values for sentence in sentences(slot, value)]
        features = self._scorer.texts(every)
        means = features.reshape(len(values), -1, features.shape[1]).mean(axis=1)
        return values, means / np.linalg.norm(means, axis=1, keepdims=True)


def accuracy(classifier: ZeroShot, records: Sequence[dict], root: epath.Path) -> dict[str, dict]:
    """Returns {slot: {"accuracy", "images", "values"}} over images whose attributes are known.

    Only images that show the slot count (see `attributes.hidden`). root: the run's workdir, which
    the images' paths start from.
    """
    features = classifier.features([read(root / r["image"]["path"]) for r in records])
    result = {}
    for slot in PROMPTS:
        values, probabilities = classifier.probabilities(slot, features)
        truth = np.array([answers(slot).get(r["attributes"][slot], "none") for r in records])
        hidden = np.array([slot in attributes.hidden(r["attributes"]) for r in records])
        shown = (truth != "none") & ~hidden
        answers_of_model = np.array(values)[probabilities.argmax(axis=1)]
        right = answers_of_model[shown] == truth[shown]
        result[slot] = {
            "accuracy": float(right.mean()) if shown.any() else None,
            "images": int(shown.sum()),
            "values": len(values),
        }
    return result


def read_records(workdir: Workdir, stage: str, split: str) -> list[dict]:
    """Returns the records of a split whose attributes are known.

    Raises UserError where there are none.
    """
    records = [r for r in workdir.manifest(stage) if r["split"] == split]
    if not records:
        raise UserError(
            f"{workdir.root} has no images of split {split!r}; choose another --split (train, val "
            "or test)."
        )
    known = [r for r in records if r.get("attributes")]
    if not known:
        raise UserError(
            f"the images of {workdir.root} have no known attributes, since their prompts were not "
            "made from attributes; use a run with prompts.engine=template."
        )
    if lacking := len(records) - len(known):
        count = f"{lacking} of {len(records)} images"
        say(f"zero-shot: {count} are left out, since their attributes are not known")
    return known


# --- the command ---------------------------------------------------------------------------------


def main() -> None:
    """Prints the table of accuracies."""
    args = flags.FLAGS
    if args.output:
        files.check_output(args.output, "--output")
    workdir = Workdir(args.workdir, order=(), chosen=())
    if workdir.commit(args.stage) is None:
        raise UserError(
            f"{args.workdir} has no finished stage {args.stage!r}; use a run that generated "
            "images, or --stage=generate (real photographs have no known attributes)."
        )
    records = read_records(workdir, args.stage, args.split)
    scorer = Scorer(open_saved(args.model, resize=args.resize))
    result = accuracy(ZeroShot(scorer), records, workdir.root)
    print("| attribute | accuracy, % | by chance, % | images |\n|---|---|---|---|")
    for slot, row in result.items():
        percent = f"{100 * row['accuracy']:.1f}" if row["images"] else "–"
        name = slot.replace("_", " ")
        print(f"| {name} | {percent} | {100 / row['values']:.1f} | {row['images']} |")
    if args.output:
        files.write_json_atomic(epath.Path(args.output).expanduser(), result)


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("model", None, "WORKDIR, a published checkpoint, or tiny-clip")
    flags.DEFINE_string("workdir", None, "a run whose images have attributes")
    flags.DEFINE_enum("stage", "augment", STAGES, "stage whose images are classified")
    flags.DEFINE_string("split", "test", "split of the images")
    flags.DEFINE_enum("resize", "", RESIZES, RESIZE_HELP)
    flags.DEFINE_string("output", "", "file for the table as JSON")
    command.require("model", "workdir")


COMMAND = "zero-shot", "zero-shot accuracy of a CLIP on attributes"

if __name__ == "__main__":
    define_flags()
    command.run(main, "--model and --workdir")
