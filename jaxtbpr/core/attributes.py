"""The attribute record: what a person image shows, in plain words.

One flat dict per image, person slots and scene slots together. The renderer draws it, the prompts
and captions say it, and it is the only ground truth of images that are drawn. A slot that does
not apply holds "none".

The slots follow the descriptor lists of SynTBPR (arXiv:2503.22171) and its edits (background,
weather, style, posture); garment colours are ours, as no slot of the paper has them.
"""

import bisect
import itertools
from collections.abc import Mapping

import numpy as np

from jaxtbpr.core.errors import InputError

COLOURS = (
    "black", "white", "grey", "red", "orange", "yellow",
    "green", "blue", "purple", "pink", "brown", "beige",
)  # fmt: skip
OR_NONE = ("none", *COLOURS)

PERSON = {
    "sex": ("female", "male"),
    "age": ("young", "middle-aged", "old"),
    "build": ("slim", "average", "heavy"),
    "complexion": ("light", "tan", "brown", "dark"),  # drawn, never named in text
    "hair": ("short", "long", "ponytail", "bun", "curly", "bald"),
    "hair_colour": ("black", "brown", "blond", "grey", "red", "none"),
    "upper": (
        "t-shirt", "shirt", "sweater", "hoodie", "jacket", "coat", "vest", "suit jacket", "dress",
    ),
    "upper_colour": COLOURS,
    "upper_pattern": ("plain", "striped", "checked", "dotted", "printed"),
    "sleeves": ("long", "short", "none"),
    "lower": ("trousers", "jeans", "shorts", "skirt", "long skirt", "leggings", "none"),
    "lower_colour": OR_NONE,
    "shoes": ("trainers", "leather shoes", "boots", "sandals"),
    "shoes_colour": COLOURS,
    "bag": ("none", "backpack", "handbag", "shoulder bag", "suitcase"),
    "bag_colour": OR_NONE,
    "hat": ("none", "cap", "beanie", "sun hat"),
    "hat_colour": OR_NONE,
    "eyewear": ("none", "glasses", "sunglasses"),
    "item": ("none", "scarf", "umbrella", "phone"),
    "item_colour": OR_NONE,
}  # fmt: skip

SCENE = {
    "background": (
        "street", "park", "shop", "station", "car park",
        "forest", "desert", "beach", "airport", "farm", "lake",
    ),
    "weather": ("clear", "rain", "snow", "fog"),
    "style": (
        "photo", "oil painting", "anime", "street photography", "van gogh", "pointillism",
    ),
    "posture": ("standing", "walking", "running", "sitting", "raising hands", "thumb up"),
    "view": ("front", "back", "left", "right"),
    "camera": ("eye level", "high"),
}  # fmt: skip

SLEEVES = {
    "t-shirt": ("short",), "shirt": ("long", "short"), "sweater": ("long",), "hoodie": ("long",),
    "jacket": ("long",), "coat": ("long",), "vest": ("none",), "suit jacket": ("long",),
    "dress": ("short", "long"),
}  # fmt: skip
JEANS_COLOURS = ("blue", "black", "grey")
_UNDER_HAT = ("short", "bun", "bald")  # hair of which a hat leaves nothing to see
_UNDER_COAT = ("shorts", "skirt")  # of which a coat leaves at most a rim
WOMENS_LOWER = ("skirt", "long skirt")

# Relative weights of the draws; a slot (or a value) that is not named here is uniform (or 1).
# A key "slot|value" holds the weights of that slot for a person of that sex or age.
WEIGHTS = {
    "age": {"young": 4, "middle-aged": 4, "old": 3},
    "build": {"slim": 3, "average": 4, "heavy": 3},
    "hair|female": {"short": 3, "long": 5, "ponytail": 4, "bun": 3, "curly": 4, "bald": 0},
    "hair|male": {"short": 8, "long": 2, "ponytail": 1, "bun": 1, "curly": 4, "bald": 3},
    "hair_colour|young": {"black": 4, "brown": 4, "blond": 4, "grey": 0, "red": 3, "none": 0},
    "hair_colour|middle-aged": {"black": 4, "brown": 4, "blond": 3, "grey": 2, "red": 2, "none": 0},
    "hair_colour|old": {"black": 1, "brown": 1, "blond": 1, "grey": 8, "red": 0, "none": 0},
    "upper|female": {"dress": 2},
    "upper|male": {"dress": 0},
    "upper_pattern": {"plain": 5, "striped": 2, "checked": 2, "dotted": 2, "printed": 2},
    "lower|female": {
        "trousers": 4, "jeans": 4, "shorts": 3, "skirt": 4, "long skirt": 3, "leggings": 3,
        "none": 0,
    },
    "lower|male": {
        "trousers": 5, "jeans": 4, "shorts": 4, "skirt": 0, "long skirt": 0, "leggings": 0,
        "none": 0,
    },
    "shoes": {"trainers": 4, "leather shoes": 3, "boots": 3, "sandals": 2},
    "bag": {"none": 8, "backpack": 4, "handbag": 3, "shoulder bag": 4, "suitcase": 2},
    "hat": {"none": 8, "cap": 2, "beanie": 2, "sun hat": 1},
    "eyewear": {"none": 7, "glasses": 3, "sunglasses": 2},
    "item": {"none": 8, "scarf": 3, "umbrella": 2, "phone": 2},
    "weather": {"clear": 6, "rain": 2, "snow": 2, "fog": 2},
    "style": {
        "photo": 10, "oil painting": 1, "anime": 1, "street photography": 1, "van gogh": 1,
        "pointillism": 1,
    },
    "posture": {
        "standing": 5, "walking": 6, "running": 2, "sitting": 2, "raising hands": 1, "thumb up": 1,
    },
    "view": {"front": 4, "back": 3, "left": 2, "right": 2},
    "camera": {"eye level": 3, "high": 2},
}  # fmt: skip


def sample_person(rng: np.random.Generator) -> dict[str, str]:
    """Draws one consistent person, {slot: value} over every slot of PERSON, by WEIGHTS.

    The colours of the garments are uniform and independent of each other (of jeans: uniform
    over JEANS_COLOURS); about half of the people carry a bag and a third wear a hat.
    """
    person = {}
    for slot in PERSON:
        condition = person.get("age" if slot == "hair_colour" else "sex", "")
        weights = WEIGHTS.get(f"{slot}|{condition}", WEIGHTS.get(slot, {}))
        person[slot] = _draw(rng, _choices(slot, person), weights)
    return normalise(person)


def sample_scene(rng: np.random.Generator) -> dict[str, str]:
    """Draws one scene, {slot: value} over every slot of SCENE, by WEIGHTS."""
    return {slot: _draw(rng, values, WEIGHTS.get(slot, {})) for slot, values in SCENE.items()}


def normalise(record: dict[str, str]) -> dict[str, str]:
    """Returns a copy in which the slots agree; a consistent record comes back unchanged.

    The rules: dress and skirt are women's, bald is men's; sleeves follow the upper garment; a
    dress has no lower garment; jeans are blue, black or grey; the colour of what is not there is
    "none" and what is there has a colour. record: all slots of PERSON, with or without SCENE's.
    """
    out = dict(record)
    if out["sex"] == "male":
        _replace(out, "upper", ("dress",), "shirt")
        _replace(out, "lower", WOMENS_LOWER, "trousers")
    else:
        _replace(out, "hair", ("bald",), "short")
    if out["upper"] == "dress":
        out["lower"] = "none"
    else:
        _replace(out, "lower", ("none",), "trousers")
    if out["sleeves"] not in SLEEVES[out["upper"]]:
        out["sleeves"] = SLEEVES[out["upper"]][0]
    _agree_colours(out)
    return out


def check(record: dict[str, str]) -> None:
    """Raises InputError unless `record` is a complete, consistent attribute record.

    It must hold every slot of PERSON; of SCENE either every slot or none; nothing else; values of
    the vocabulary; and nothing that `normalise` would change.
    """
    has_scene = any(slot in record for slot in SCENE)
    slots = {**PERSON, **SCENE} if has_scene else PERSON
    for slot in record:
        if slot not in slots:
            raise InputError(
                f"attributes have the unknown slot {slot!r}; the slots are {list(slots)}."
            )
    for slot, values in slots.items():
        if record.get(slot) not in values:
            raise InputError(
                f"attributes have {slot}={record.get(slot)!r}; it must be one of {list(values)}."
            )
    for slot, value in normalise(record).items():
        if record[slot] != value:
            raise InputError(
                f"attributes have {slot}={record[slot]!r}, which does not go with the other "
                f"slots (they ask for {value!r}); pass the record through attributes.normalise."
            )


def hidden(record: Mapping[str, str]) -> set[str]:
    """Returns the slots that the view, a hat, a coat or a backpack hides in the image of `record`.

    A change of such a slot changes no pixels, or so few that nobody could tell. record: person and
    scene.
    """
    slots = set()
    if record["upper"] == "coat" and record["lower"] in _UNDER_COAT:
        slots |= {"lower", "lower_colour"}
    if record["view"] == "back":
        slots.add("eyewear")
    if record["hat"] != "none" and record["hair"] in _UNDER_HAT:
        slots |= {"hair", "hair_colour"}
    # A print is on chest and back, out of sight from the side and below a backpack.
    is_covered = record["view"] == "back" and record["bag"] == "backpack"
    if record["upper_pattern"] == "printed" and (is_covered or record["view"] in ("left", "right")):
        slots.add("upper_pattern")
    return slots


def _choices(slot: str, person: dict[str, str]) -> tuple[str, ...]:
    """The values that `slot` can take given the slots drawn before it, "none" left out."""
    if slot == "sleeves":
        return SLEEVES[person["upper"]]
    if slot == "lower_colour" and person["lower"] == "jeans":
        return JEANS_COLOURS
    if slot.endswith("_colour") and slot != "hair_colour":
        return COLOURS
    return PERSON[slot]


def _draw(rng: np.random.Generator, values: tuple[str, ...], weights: Mapping[str, float]) -> str:
    bounds = list(itertools.accumulate(weights.get(value, 1.0) for value in values))
    return values[bisect.bisect_right(bounds, rng.random() * bounds[-1])]


def _replace(record: dict[str, str], slot: str, wrong: tuple[str, ...], right: str) -> None:
    if record[slot] in wrong:
        record[slot] = right


def _agree_colours(record: dict[str, str]) -> None:
    """Makes each colour slot "none" exactly where its thing is not there."""
    present = {
        "hair_colour": record["hair"] != "bald",
        "lower_colour": record["lower"] != "none",
        "bag_colour": record["bag"] != "none",
        "hat_colour": record["hat"] != "none",
        "item_colour": record["item"] in ("scarf", "umbrella"),
    }
    for slot, there in present.items():
        if not there:
            record[slot] = "none"
        elif record[slot] == "none":
            record[slot] = "brown" if slot == "hair_colour" else "black"
    if record["lower"] == "jeans" and record["lower_colour"] not in JEANS_COLOURS:
        record["lower_colour"] = JEANS_COLOURS[0]
