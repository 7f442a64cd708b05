"""Engine "template": captions from a small grammar, no two writers alike.

The content (`facts`) and its words (`vocabulary`, `phrases`) are drawn first. Then the phrases form
groups (looks, clothes, what is carried, what the person does), and each group takes one of its
forms: predicate ("wears a red coat"), participle ("wearing a red coat"), or the words after the
subject ("in a red coat"). One or two sentences are built of them. Their combinations give the
variety of the sentence patterns in SynTBPR's variable instruction (arXiv:2503.22171).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxtbpr.captioning import facts, phrases, vocabulary
from jaxtbpr.captioning.vocabulary import pick
from jaxtbpr.core.english import agree_articles, capitalised, enumerate_phrases

MIN_WORDS = 12
MAX_WORDS = 45


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption, its content, and its mistakes.

    mentioned: {slot: value}; noise: [slot, true value, stated value or None where it is left out].
    """

    text: str
    mentioned: dict[str, str]
    noise: list[list[str | None]]


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of phrases in its forms.

    predicate: "wears a coat"; participle: "wearing a coat", also at the front of a sentence;
    behind: "in a coat", directly after the subject, and tail: ", wearing a coat", at the end ("":
    the group has no such form).
    """

    predicate: str
    participle: str
    behind: str
    tail: str


def describe(
    attributes: Mapping[str, str],
    rng: np.random.Generator,
    *,
    mention: Mapping[str, float] = facts.MENTION,
    wrong: float = 0.0,
    missing: float = 0.0,
    min_words: int = MIN_WORDS,
) -> Caption:
    """Returns a caption of the image with these attributes (person and scene).

    mention: {slot: probability of mentioning it where it is visible}. missing: probability that a
    chosen slot is left out; wrong: that one which is not has another of its values. Without missing
    slots a caption has `min_words` to 45 words, if enough is visible.
    """
    slots, count = facts.rank(attributes, rng, mention)
    seen = facts.misread(attributes, rng, wrong, missing)
    text = _write(facts.mentioned(slots[:count], seen), rng)
    while len(text.split()) < min_words and count < len(slots):
        count += 1
        text = _write(facts.mentioned(slots[:count], seen), rng)
    while len(text.split()) > MAX_WORDS:
        count -= 1
        text = _write(facts.mentioned(slots[:count], seen), rng)
    named = slots[:count]
    return Caption(text, facts.mentioned(named, seen), facts.noise(named, seen, attributes))


def _write(content: Mapping[str, str], rng: np.random.Generator) -> str:
    person = phrases.subject(content, rng)
    sentences = _plan(content, person, rng)
    subjects = [
        f"{pick(('a', 'the', 'this'), rng)} {person.full}",
        person.they if rng.random() < 0.9 else f"the {person.noun}",
    ]
    texts = [_sentence(s, groups, rng) for s, groups in zip(subjects, sentences, strict=False)]
    if len(sentences) == 1 and sentences[0] and rng.random() < 0.15:
        texts = [_fragment(subjects[0], sentences[0])]
    return agree_articles(" ".join(texts))


def _plan(
    content: Mapping[str, str], person: phrases.Subject, rng: np.random.Generator
) -> list[list[Group]]:
    """Returns the groups of the one sentence or of both, in their order."""
    is_now = rng.random() < 0.4  # "is wearing" rather than "wears", throughout
    is_split = rng.random() < 0.6
    looks, clothes, more = _looks_and_clothes(content, person, rng)
    if not (is_split and clothes and more and rng.random() < 0.5):
        clothes, more = clothes + more, []
    dressed = _clothes(clothes, is_now, rng)
    carried = _carried(phrases.carried(content, person.their, rng), is_now)
    doing = _scene(phrases.scene(content, person.their, rng))
    groups = [group for group in (_looks(looks), dressed, carried, doing) if group]
    if rng.random() < 0.35:  # the clothes first
        groups.sort(key=lambda group: group is not dressed)
    elif rng.random() < 0.2:
        groups = [groups[k] for k in rng.permutation(len(groups))]
    if dressed and more:
        cut = int(rng.integers(groups.index(dressed) + 1, len(groups) + 1))
        return [groups[:cut], [_more_clothes(more, is_now), *groups[cut:]]]
    if is_split and len(groups) > 1:
        cut = int(rng.integers(1, len(groups)))
        return [groups[:cut], groups[cut:]]
    return [groups]


def _looks_and_clothes(
    content: Mapping[str, str], person: phrases.Subject, rng: np.random.Generator
) -> tuple[list[str], list[str], list[str]]:
    """Phrases for features of the person, for garments, and for everything else worn."""
    looks = phrases.hair(content, person.their, rng)
    clothes = [p for slot in ("upper", "lower") for p in phrases.thing(slot, content, rng)]
    more = [p for slot in ("shoes", "hat") for p in phrases.thing(slot, content, rng)]
    if content.get("item") == "scarf":
        more += phrases.thing("item", content, rng)
    (looks if rng.random() < 0.5 else more).extend(phrases.thing("eyewear", content, rng))
    if rng.random() < 0.2:
        rng.shuffle(more)
    return looks, clothes, more


def _looks(have: list[str]) -> Group | None:
    if not have:
        return None
    listed = enumerate_phrases(have)
    return Group(f"has {listed}", f"with {listed}", f"with {listed}", "")


def _clothes(worn: list[str], is_now: bool, rng: np.random.Generator) -> Group | None:
    if not worn:
        return None
    listed = enumerate_phrases(worn)
    wears = "is wearing" if is_now else "wears"
    participle = f"{pick(('wearing', 'dressed in'), rng)} {listed}"
    return Group(
        f"{pick((wears, 'is dressed in', 'has on'), rng)} {listed}",
        participle,
        f"{pick(('in', 'wearing'), rng)} {listed}",
        participle,
    )


def _more_clothes(worn: list[str], is_now: bool) -> Group:
    """Shoes, hats and the like, in which nobody is "dressed"."""
    listed = enumerate_phrases(worn)
    participle = f"wearing {listed}"
    return Group(f"is {participle}" if is_now else f"wears {listed}", participle, "", participle)


def _carried(carried: list[tuple[str, str]], is_now: bool) -> Group | None:
    if not carried:
        return None
    verbs = {verb for verb, _ in carried}
    if len(verbs) == 1:  # the same verb for both
        carried = [(verbs.pop(), enumerate_phrases([phrase for _, phrase in carried]))]
    participle = " and ".join(f"{verb} {phrase}" for verb, phrase in carried)
    simple = " and ".join(f"{vocabulary.FINITE[verb]} {phrase}" for verb, phrase in carried)
    behind = "with " + enumerate_phrases([phrase for _, phrase in carried])
    return Group(f"is {participle}" if is_now else simple, participle, behind, participle)


def _scene(participles: list[str]) -> Group | None:
    if not participles:
        return None
    listed = enumerate_phrases(participles)
    return Group(f"is {listed}", listed, "", listed)


def _sentence(subject: str, groups: list[Group], rng: np.random.Generator) -> str:
    """Builds: [participle,] subject [behind] predicate [, predicate] [, participle]."""
    front, behind, tail = "", "", ""
    rest = list(groups)
    if len(rest) > 1 and rng.random() < 0.25:
        front = rest.pop(0).participle + ", "
        subject = "the " + subject[2:] if subject.startswith("a ") else subject
    is_pronoun = subject in ("she", "he")
    if len(rest) > 1 and rest[0].behind and not is_pronoun and rng.random() < 0.6:
        behind = " " + rest.pop(0).behind
    if len(rest) > 1 and rest[-1].tail and rng.random() < 0.5:
        tail = ", " + rest.pop().tail
    predicates = [group.predicate for group in rest] or ["is seen"]
    return capitalised(f"{front}{subject}{behind} {enumerate_phrases(predicates)}{tail}.")


def _fragment(subject: str, groups: list[Group]) -> str:
    """Builds a caption without a predicate: "A woman in a red coat, carrying a bag."."""
    first, *rest = groups
    parts = [f"{subject} {first.behind or first.participle}", *(g.participle for g in rest)]
    return capitalised(", ".join(parts) + ".")
