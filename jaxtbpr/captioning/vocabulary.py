"""The words for the values of the attribute record, the most usual first.

Every word stands for one value only, so that a caption without noise is never wrong. "{}" is
where adjectives go; "a" becomes "an" where it must in the finished caption.
"""

from collections.abc import Sequence

import numpy as np

from jaxtbpr.core.attributes import COLOURS

_OTHER_COLOURS = {
    "grey": ("grey", "gray"),
    "purple": ("purple", "violet"),
    "beige": ("beige", "cream", "cream-coloured"),
}
COLOUR = {colour: _OTHER_COLOURS.get(colour, (colour,)) for colour in COLOURS}

ADJECTIVES = {
    "age": {"young": ("young",), "middle-aged": ("middle-aged",), "old": ("old", "elderly")},
    "hair_colour": {
        "black": ("black",),
        "brown": ("brown",),
        "blond": ("blond", "blonde"),
        "grey": ("grey", "gray"),
        "red": ("red", "ginger"),
    },
    "upper_pattern": {
        "plain": ("plain", "solid"),
        "striped": ("striped", "with stripes"),
        "checked": ("checked", "plaid", "checkered"),
        "dotted": ("polka-dot", "dotted", "with dots"),
        "printed": ("printed", "with a print", "with a picture on it"),
    },
    "sleeves": {
        "long": ("long-sleeved", "long-sleeve"),
        "short": ("short-sleeved", "short-sleeve"),
        "none": ("sleeveless",),
    },
} | {f"{thing}_colour": COLOUR for thing in ("upper", "lower", "shoes", "bag", "hat", "item")}

# Those with "of" stand behind the noun.
BUILD = {
    "slim": ("slim", "thin", "of slim build"),
    "average": ("of average build", "of medium build"),
    "heavy": ("heavyset", "stout", "of heavy build"),
}

# The key None: how people call it when they do not say which kind it is.
NOUNS = {
    "hair": {
        "short": ("short {} hair", "{} short hair"),
        "long": ("long {} hair", "{} long hair"),
        "ponytail": ("a {} ponytail", "{} hair in a ponytail", "{} hair tied in a ponytail"),
        "bun": ("{} hair in a bun", "{} hair tied up in a bun"),
        "curly": ("curly {} hair", "{} curly hair", "{} curls"),
        "bald": ("a bald head", "a shaved head"),
        None: ("{} hair",),
    },
    "upper": {
        "t-shirt": ("a {} T-shirt", "a {} tee", "a {} tee shirt"),
        "shirt": ("a {} shirt", "a {} collared shirt", "a {} button-up shirt"),
        "sweater": ("a {} sweater", "a {} jumper", "a {} pullover"),
        "hoodie": ("a {} hoodie", "a {} hooded sweatshirt"),
        "jacket": ("a {} jacket",),
        "coat": ("a {} coat", "a {} overcoat"),
        "vest": ("a {} vest",),
        "suit jacket": ("a {} suit jacket", "a {} blazer"),
        "dress": ("a {} dress",),
        None: ("a {} top",),
    },
    "lower": {
        "trousers": ("{} trousers", "{} pants", "{} slacks"),
        "jeans": ("{} jeans", "{} denim jeans"),
        "shorts": ("{} shorts",),
        "skirt": ("a {} skirt",),
        "long skirt": ("a long {} skirt", "a {} maxi skirt"),
        "leggings": ("{} leggings", "{} tights"),
        None: ("{} bottoms",),
    },
    "shoes": {
        "trainers": ("{} trainers", "{} sneakers", "{} sports shoes"),
        "leather shoes": ("{} leather shoes", "{} dress shoes"),
        "boots": ("{} boots",),
        "sandals": ("{} sandals",),
        None: ("{} shoes", "{} footwear"),
    },
    "bag": {
        "backpack": ("a {} backpack", "a {} rucksack"),
        "handbag": ("a {} handbag", "a {} purse"),
        "shoulder bag": ("a {} shoulder bag", "a {} crossbody bag"),
        "suitcase": ("a {} suitcase", "a {} rolling suitcase"),
        None: ("a {} bag",),
    },
    "hat": {
        "cap": ("a {} cap", "a {} baseball cap"),
        "beanie": ("a {} beanie", "a {} knit hat"),
        "sun hat": ("a {} sun hat", "a {} wide-brimmed hat"),
        None: ("a {} hat",),
    },
    "eyewear": {
        "glasses": ("glasses", "eyeglasses"),
        "sunglasses": ("sunglasses",),
    },
    "item": {
        "scarf": ("a {} scarf",),
        "umbrella": ("a {} umbrella",),
        "phone": ("a {} phone", "a {} mobile phone", "a {} cell phone"),
    },
}

SUBJECTS = {
    "female": ("woman", "lady", "female"),
    "male": ("man", "gentleman", "male"),
    None: ("person", "pedestrian", "individual"),
}
GIRL_OR_BOY = {"female": "girl", "male": "boy"}  # say "young" as well
PRONOUNS = {"female": ("she", "her"), "male": ("he", "his")}

# How a thing is carried: verbs, and places that may follow it.
CARRIED = {
    "backpack": (("carrying",), ("", "on {their} back")),
    "handbag": (("carrying", "holding"), ("", "in {their} hand")),
    "shoulder bag": (("carrying",), ("", "over {their} shoulder")),
    "suitcase": (("pulling", "carrying"), ("", "at {their} side")),
    None: (("carrying",), ("",)),
    "umbrella": (("holding", "carrying"), ("",)),
    "phone": (("holding",), ("", "in {their} hand")),
}
FINITE = {"carrying": "carries", "holding": "holds", "pulling": "pulls"}

POSTURE = {
    "standing": ("standing",),
    "walking": ("walking", "strolling"),
    "running": ("running", "jogging"),
    "sitting": ("sitting", "seated"),
    "raising hands": ("raising both hands", "raising {their} arms"),
    "thumb up": ("giving a thumbs up", "showing a thumbs up"),
}
PLACE = {
    "street": ("on a street", "in the street"),
    "park": ("in a park",),
    "shop": ("in a shop", "in a store"),
    "station": ("at a station", "on a station platform"),
    "car park": ("in a car park", "in a parking lot"),
    "forest": ("in a forest", "in the woods"),
    "desert": ("in a desert",),
    "beach": ("on a beach", "at the beach"),
    "airport": ("at a airport", "in a airport"),
    "farm": ("on a farm",),
    "lake": ("by a lake", "beside a lake"),
}
WEATHER = {
    "clear": ("on a clear day",),
    "rain": ("in the rain", "on a rainy day"),
    "snow": ("in the snow", "on a snowy day"),
    "fog": ("in the fog", "on a foggy day"),
}
STYLE = {
    "photo": ("shown in a photo", "photographed"),
    "oil painting": ("painted in oil", "shown in a oil painting"),
    "anime": ("drawn as anime", "shown in a anime drawing"),
    "street photography": ("shown in a street photograph",),
    "van gogh": ("painted like a Van Gogh", "shown in a Van Gogh painting"),
    "pointillism": ("painted in dots", "shown in a pointillist painting"),
}
VIEW = {
    "front": ("facing the camera", "seen from the front"),
    "back": ("seen from behind", "facing away from the camera"),
    "left": ("seen from the side", "turned to the side"),
    "right": ("seen from the side", "turned to the side"),
}


def pick(forms: Sequence[str], rng: np.random.Generator) -> str:
    """Returns one of `forms`; each is twice as frequent as the next, the last two are equal."""
    draw, k = rng.random(), 0
    while k < len(forms) - 1 and draw < 0.5 ** (k + 1):
        k += 1
    return forms[k]
