"""The plain template: random attributes of a person and the prompt for their image.

After the plain template of SynTBPR (arXiv:2503.22171: age, gender / hair / upper garment / lower
garment / shoes / extra item / camera angle, drawn at random, no language model afterwards), with
the slots of `core.attributes`, garment colours among them, and words for the scene.
"""

import hashlib
import json
from collections.abc import Iterator

from jaxtbpr.core import attributes
from jaxtbpr.core.english import agree_articles, capitalised, enumerate_phrases
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.seeds import rng

# The number of a split's first identity: a split can grow without renumbering another.
FIRST_IDENTITY = {"train": 0, "val": 80_000_000, "test": 90_000_000}
MAX_IDENTITIES = {"train": 80_000_000, "val": 10_000_000, "test": 10_000_000}

# Which split a look belongs to, by two bits of its hash. A test look is thus unseen in training
# however many identities are drawn, and the test set does not depend on the train set.
_OWNER = ("train", "train", "val", "test")
_MAX_DRAWS = 1000

# "a" becomes "an" where it must in the finished sentence.
_STYLE = {
    "photo": "a photo of",
    "oil painting": "a oil painting of",
    "anime": "a anime drawing of",
    "street photography": "street photography of",
    "van gogh": "a Van Gogh painting of",
    "pointillism": "a pointillist painting of",
}
_HAIR = {
    "short": "short {} hair",
    "long": "long {} hair",
    "ponytail": "a {} ponytail",
    "bun": "{} hair in a bun",
    "curly": "curly {} hair",
    "bald": "a bald head",
}
_POSTURE = {"raising hands": "raising both hands", "thumb up": "giving a thumbs up"}
_PLACE = {
    "street": "on a street",
    "shop": "in a shop",
    "station": "at a station",
    "beach": "on a beach",
    "airport": "at a airport",
    "farm": "on a farm",
    "lake": "by a lake",
}
_WEATHER = {"rain": "in the rain", "snow": "in the snow", "fog": "in the fog"}
_VIEW = {"front": "from the front", "back": "from behind"}
# For editors that are told what to change.
_ACT = {
    "standing": "stand",
    "walking": "walk",
    "running": "run",
    "sitting": "sit",
    "raising hands": "raise both hands",
    "thumb up": "give a thumbs up",
}
_BECOME = {"clear": "the weather clear", "rain": "it rainy", "snow": "it snowy", "fog": "it foggy"}
_SIDES = {"left": "from the left", "right": "from the right"} | _VIEW
_HEIGHT = {"eye level": "at eye level", "high": "from above"}


def draw_people(seed: int, split: str, count: int) -> Iterator[tuple[str, dict[str, str], int]]:
    """Yields (identity, person attributes, draws rejected as seen before) for each identity.

    No two people look the same (see `look`), neither in this split nor across splits. Person k
    depends on `seed`, `split` and k alone, not on `count`, so that a split can be made larger
    later. Keeps 16 bytes for each identity. Raises InputError when the vocabulary runs out.
    """
    seen: set[bytes] = set()
    for number in range(FIRST_IDENTITY[split], FIRST_IDENTITY[split] + count):
        identity = f"{number:08d}"
        drawn = _draw_unseen(seed, split, identity, seen)
        if drawn is None:
            raise InputError(
                f"{split}={count} asks for more people than can look different: {len(seen)} "
                f"were drawn, then {_MAX_DRAWS} draws gave no new one; ask for fewer."
            )
        person, repeats = drawn
        seen.add(look(person))
        yield identity, person, repeats


def look(person: dict[str, str]) -> bytes:
    """Returns a 16-byte digest of what a text mentions of a person: all but the complexion."""
    values = [person[slot] for slot in attributes.PERSON if slot != "complexion"]
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()


def owner(digest: bytes) -> str:
    """Returns the split that the person or prompt with this digest belongs to."""
    return _OWNER[digest[0] % 4]


def prompt(record: dict[str, str], subject: str = "") -> str:
    """Returns the sentence for an attribute record (person and scene), within 77 CLIP tokens.

    Slots at their default (average build, plain pattern, clear weather, eye level) are not
    mentioned, nor is the complexion. subject: "sks person", where a fine-tuned generator is asked
    for its subject and "woman" becomes "female sks person".
    """
    parts = [
        f"{_STYLE[record['style']]} a {_person(record, subject)} with {_hair(record)}",
        f"wearing {enumerate_phrases(_worn(record))}",
        *_carried(record),
        _scene(record),
        f"seen {_VIEW.get(record['view'], 'from the side')}"
        + (" and above" if record["camera"] == "high" else ""),
    ]
    return capitalised(agree_articles(", ".join(parts))) + "."


def add_scene(text: str, scene: dict[str, str]) -> str:
    """Returns the prompt `text` with the slots of `scene` mentioned at its end."""
    words = [
        _STYLE[scene["style"]].removesuffix(" of") if "style" in scene else "",
        _scene(scene),
        f"seen {_VIEW.get(scene['view'], 'from the side')}" if "view" in scene else "",
        "seen from above" if scene.get("camera") == "high" else "",
    ]
    return agree_articles(", ".join([text.rstrip(". "), *filter(None, words)])) + "."


def instruction(scene: dict[str, str]) -> str:
    """Returns what to tell an editor that is to give an image these slots of `scene`, "" for none.

    >>> instruction({"background": "airport", "weather": "snow", "posture": "sitting"})
    'put the person at an airport, make it snowy and make the person sit'
    """
    words = {
        "background": lambda place: f"put the person {_place(place)}",
        "weather": lambda weather: f"make {_BECOME[weather]}",
        "posture": lambda posture: f"make the person {_ACT[posture]}",
        "view": lambda view: f"show the person {_SIDES[view]}",
        "camera": lambda camera: f"show the person {_HEIGHT[camera]}",
        "style": lambda style: f"turn it into {_STYLE[style].removesuffix(' of')}",
    }
    parts = [say(scene[slot]) for slot, say in words.items() if slot in scene]
    return agree_articles(enumerate_phrases(parts)) if parts else ""


def scene_words(slot: str, value: str) -> str:
    """Returns the words by which `prompt` mentions a value of a scene's slot, "" where it does not.

    >>> scene_words("style", "van gogh"), scene_words("weather", "clear")
    ('Van Gogh painting', '')
    """
    if slot == "style":
        return _STYLE[value].removeprefix("a ").removesuffix(" of")
    if slot == "weather":
        return value if value in _WEATHER else ""
    return _POSTURE.get(value, value) if slot == "posture" else value


def scene_phrase(slot: str, value: str) -> str:
    """Returns a phrase that can stand before a description: "in the snow", "oil painting".

    >>> scene_phrase("background", "airport")
    'at an airport'
    """
    if slot == "background":
        return agree_articles(_place(value))
    if slot == "weather":
        return _WEATHER.get(value, "in clear weather")
    return scene_words(slot, value)


def _draw_unseen(
    seed: int, split: str, identity: str, seen: set[bytes]
) -> tuple[dict[str, str], int] | None:
    generator = rng(seed, "prompts", identity)
    repeats = 0
    for _ in range(_MAX_DRAWS):
        person = attributes.sample_person(generator)
        digest = look(person)
        if owner(digest) != split:
            continue
        if digest not in seen:
            return person, repeats
        repeats += 1
    return None


def _person(record: dict[str, str], subject: str) -> str:
    build = "" if record["build"] == "average" else record["build"] + " "
    noun = {"female": "woman", "male": "man"}[record["sex"]]
    if subject:
        noun = f"{record['sex']} {subject}"
    return f"{build}{record['age']} {noun}"


def _hair(record: dict[str, str]) -> str:
    return _HAIR[record["hair"]].format(record["hair_colour"])


def _worn(record: dict[str, str]) -> list[str]:
    worn = ["a " + _upper(record)]
    if record["lower"] != "none":
        worn.append(_lower(record))
    worn.append(f"{record['shoes_colour']} {record['shoes']}")
    if record["hat"] != "none":
        worn.append(f"a {record['hat_colour']} {record['hat']}")
    if record["item"] == "scarf":
        worn.append(f"a {record['item_colour']} scarf")
    return worn + [record["eyewear"]] * (record["eyewear"] != "none")


def _upper(record: dict[str, str]) -> str:
    garment = record["upper"]
    is_open = len(attributes.SLEEVES[garment]) > 1
    sleeves = f"{record['sleeves']}-sleeved " if is_open else ""
    pattern = "" if record["upper_pattern"] == "plain" else record["upper_pattern"] + " "
    return f"{sleeves}{pattern}{record['upper_colour']} {garment}"


def _lower(record: dict[str, str]) -> str:
    *adjectives, noun = record["lower"].split()
    phrase = " ".join([*adjectives, record["lower_colour"], noun])
    return f"a {phrase}" if noun == "skirt" else phrase


def _carried(record: dict[str, str]) -> list[str]:
    carried = []
    if record["bag"] != "none":
        carried.append(f"a {record['bag_colour']} {record['bag']}")
    if record["item"] == "umbrella":
        carried.append(f"a {record['item_colour']} umbrella")
    elif record["item"] == "phone":
        carried.append("a phone")
    return ["carrying " + enumerate_phrases(carried)] if carried else []


def _place(background: str) -> str:
    return _PLACE.get(background, "in a " + background)


def _scene(record: dict[str, str]) -> str:
    posture, place = record.get("posture", ""), record.get("background", "")
    words = [
        _POSTURE.get(posture, posture),
        _place(place) if place else "",
        _WEATHER.get(record.get("weather", ""), ""),
    ]
    return " ".join(filter(None, words))
