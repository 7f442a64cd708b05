"""What prompt-to-prompt needs of the prompts: which token of a target has the source's attention.

Hertz et al., "Prompt-to-Prompt Image Editing with Cross Attention Control", arXiv:2208.01626,
section 3. All of it is made on the host, as arrays whose shapes depend on the numbers of
targets, tokens and steps alone, so that one compiled program serves every pair of prompts.

Letters: `L` tokens of a text (77), `K` targets of one source prompt, `n` steps. Token 0 is the
start, 1 the first of the prompt. Two rules of the authors' code do not what they are meant to do,
and are options: match, which tokens a word has (see `words`), and

tail: what comes after the last change, where the prompts have unequal numbers of tokens.
"aligned": is paired from there on, and tokens without a partner keep their own map; "published":
a target's token has the map of the source's token at the same place, which is another word.
"""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.editing.words import all_tokens, check_choice, find_tokens, word_tokens
from jaxtbpr.diffusion.prompt_tokenizer import PromptTokenizer

METHODS = ("replace", "refine", "reweight")
TAILS = ("aligned", "published")
DEFAULT = "default_"  # of a schedule by words: the tokens of no word
# Until which part of the steps, from which to which, or that for each word.
Bounds = float | Sequence[float]
Schedule = Bounds | Mapping[str, Bounds]


class PromptEdit(NamedTuple):
    """K edits of one source prompt, which may be of different methods; NumPy arrays.

    With the cross-attention maps base [T, L] of the source and own [T, L] of target k, in step s:
    new = equalizer[k] * (base @ mapper[k] + keep[k] * own), and the map that is used is
    cross[s, k] * new + (1 - cross[s, k]) * own. In steps self_steps[k, 0] to self_steps[k, 1] - 1
    target k has the self-attention maps of the source.

    mapper: float32 [K, L, L], rows source, columns target; keep: float32 [K, L], how much of its
    own map a token keeps; equalizer: float32 [K, L], weights of the tokens; cross: float32
    [n + 1, K, L], how much of the map is replaced; self_steps: int32 [K, 2].
    """

    mapper: np.ndarray
    keep: np.ndarray
    equalizer: np.ndarray
    cross: np.ndarray
    self_steps: np.ndarray


@dataclasses.dataclass(frozen=True)
class Target:
    """One edit of the source prompt.

    method: "replace" (word for word, section 3.2 "Word Swap"), "refine" (words are added, "Adding
    a New Phrase") or "reweight" (the same words, "Attention Re-weighting"); cross: the part of the
    steps in which cross-attention is replaced, see `cross_schedule`; self_replace: that for
    self-attention, a number b is (0, b); weights: {word of the target: factor of its map}, with
    every method.
    """

    prompt: str
    method: str = "replace"
    cross: Schedule = 0.8
    self_replace: Bounds = 0.5
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)


def prompt_edit(
    tokenizer: PromptTokenizer,
    source: str,
    targets: Sequence[Target],
    steps: int,
    *,
    match: str = "tokens",
    tail: str = "aligned",
) -> PromptEdit:
    """Returns the edits of `source` to each of the K `targets` in so many `steps`.

    match, tail: see the module. Raises InputError as the functions that it calls.
    """
    if not targets:
        raise InputError("targets is empty, so there is nothing to edit; give at least one.")
    mapped = [_mapper(tokenizer, source, t, match, tail) for t in targets]
    return PromptEdit(
        np.stack([mapper for mapper, _ in mapped]),
        np.stack([keep for _, keep in mapped]),
        np.stack([equalizer(tokenizer, t.prompt, t.weights, match=match) for t in targets]),
        np.stack(
            [cross_schedule(tokenizer, t.prompt, t.cross, steps, match=match) for t in targets], 1
        ),
        np.array([_rows(t.self_replace, steps, "self_replace") for t in targets], np.int32),
    )


def _mapper(tokenizer, source, target, match, tail):
    """The mapper [L, L] and what is kept [L] of one target."""
    check_choice("method", target.method, METHODS)
    if target.method == "replace":
        mapper = replace_mapper(tokenizer, source, target.prompt, match=match, tail=tail)
        if tail == "published":
            return mapper, np.zeros(tokenizer.length, np.float32)
    elif target.method == "refine":
        mapper = refine_mapper(tokenizer, source, target.prompt, tail=tail)
    else:
        mapper = np.eye(tokenizer.length, dtype=np.float32)
    return mapper, (~mapper.any(axis=0)).astype(np.float32)


def replace_mapper(
    tokenizer: PromptTokenizer,
    source: str,
    target: str,
    *,
    match: str = "tokens",
    tail: str = "aligned",
) -> np.ndarray:
    """Returns float32 [L, L], rows source, columns target: words that differ are paired in order.

    S tokens of a word become T tokens: one to one where S = T, else each has 1/T of each. Section
    3.2 of the paper, "Word Swap"; the rule for S != T is that of the authors' code. match, tail:
    see the module. Raises InputError where the prompts have unequal numbers of words, or more
    tokens than the text encoder takes.
    """
    check_choice("tail", tail, TAILS)
    length = tokenizer.length
    mapper = np.zeros((length, length), np.float32)
    i = j = 0  # the first token of each that has no partner yet
    for of_source, of_target in _replaced(tokenizer, source, target, match):
        same = np.arange(min(of_source[0] - i, length - j))
        mapper[i + same, j + same] = 1
        if len(of_source) == len(of_target):
            mapper[of_source, of_target] = 1
        else:
            mapper[np.ix_(of_source, of_target)] = 1 / len(of_target)
        i, j = of_source[-1] + 1, j + len(same) + len(of_target)
    rest = np.arange(length - max(i, j))
    mapper[(j if tail == "published" else i) + rest, j + rest] = 1
    return mapper


def refine_mapper(
    tokenizer: PromptTokenizer, source: str, target: str, *, tail: str = "aligned"
) -> np.ndarray:
    """Returns float32 [L, L], rows source, columns target: pairs the tokens that both prompts have.

    A column has one 1, or none for a token that the target alone has. Section 3.2 of the paper,
    "Adding a New Phrase"; the pairs are those of the authors' code, a global alignment that scores
    1 for the same token, 0 for a gap and -1 for another token. The pads are paired by `tail`, see
    the module. Raises InputError where a prompt has more tokens than the text encoder takes.
    """
    check_choice("tail", tail, TAILS)
    of_source, of_target = all_tokens(tokenizer, source), all_tokens(tokenizer, target)
    mapper = np.zeros((tokenizer.length, tokenizer.length), np.float32)
    for i, j in _align(np.array(of_source), np.array(of_target)):
        mapper[i, j] = 1
    i, j = len(of_source), len(of_target)
    rest = np.arange(tokenizer.length - (j if tail == "published" else max(i, j)))
    mapper[(j if tail == "published" else i) + rest, j + rest] = 1
    return mapper


def cross_schedule(
    tokenizer: PromptTokenizer,
    prompt: str,
    schedule: Schedule,
    steps: int,
    *,
    match: str = "tokens",
) -> np.ndarray:
    """Returns float32 [n + 1, L]: 1 in the steps in which a token's cross-attention is replaced.

    schedule: the part of the steps, of 0 to 1: a number b is (0, b), a range (a, b) is from
    floor(a (n + 1)) to before floor(b (n + 1)), as published; or {word of the prompt: range}, with
    "default_" for the other tokens (without it, all steps). Section 3.2 of the paper, tau. match:
    see the module. Raises InputError for a range that is none, or a word that is not in the prompt.
    """
    by_word = dict(schedule) if isinstance(schedule, Mapping) else {DEFAULT: schedule}
    table = np.zeros((steps + 1, tokenizer.length), np.float32)
    first, end = _rows(by_word.pop(DEFAULT, 1.0), steps + 1, "cross")
    table[first:end] = 1
    for word, bounds in by_word.items():
        first, end = _rows(bounds, steps + 1, f"cross[{word!r}]")
        tokens = find_tokens(tokenizer, prompt, word, match=match)
        table[:, tokens] = 0
        table[first:end, tokens] = 1
    return table


def equalizer(
    tokenizer: PromptTokenizer,
    prompt: str,
    weights: Mapping[str, float],
    *,
    match: str = "tokens",
) -> np.ndarray:
    """Returns float32 [L]: the weight of each token's map, 1 for those of no word.

    weights: {word of the prompt: factor}. Section 3.2 of the paper, "Attention Re-weighting".
    match: see the module. Raises InputError for a word that is not in the prompt.
    """
    values = np.ones(tokenizer.length, np.float32)
    for word, weight in weights.items():
        values[find_tokens(tokenizer, prompt, word, match=match)] = weight
    return values


def word_masks(
    tokenizer: PromptTokenizer,
    prompts: Sequence[str],
    words: Sequence[Sequence[str]],
    *,
    match: str = "tokens",
) -> np.ndarray:
    """Returns float32 [K + 1, L]: 1 for the tokens of a prompt's words, whose maps a blend reads.

    prompts: the source and its K targets; words: of each, () for none. The paper's local editing.
    match: see the module. Raises InputError for a word that is not in its prompt, or other numbers
    of prompts and of lists of words.
    """
    if len(words) != len(prompts):
        raise InputError(
            f"words has lists for {len(words)} prompts, but there are {len(prompts)}, the source "
            "among them; give one list for each."
        )
    masks = np.zeros((len(prompts), tokenizer.length), np.float32)
    for mask, prompt, some in zip(masks, prompts, words, strict=True):
        for word in (some,) if isinstance(some, str) else some:
            mask[find_tokens(tokenizer, prompt, word, match=match)] = 1
    return masks


def _replaced(tokenizer, source, target, match):
    """The tokens (of the source, of the target) of each word that differs."""
    blank = " " if match == "words" else None
    words, others = source.split(blank), target.split(blank)
    if len(words) != len(others):
        raise InputError(
            f"method 'replace' exchanges word for word, but the source prompt {source!r} has "
            f"{len(words)} words and the target {target!r} {len(others)}; use as many, or 'refine'."
        )
    of_source = word_tokens(tokenizer, source, match)
    of_target = word_tokens(tokenizer, target, match)
    for word, other, places, other_places in zip(words, others, of_source, of_target, strict=True):
        if word == other:
            continue
        if not places or not other_places:
            raise InputError(
                f"in the prompts {source!r} and {target!r}, {word!r} or {other!r} has no token of "
                "its own to exchange; leave out doubled blanks and unusual signs."
            )
        yield places, other_places


def _align(of_source, of_target):
    """Pairs (i, j) of the same token, in reverse; as many as can be, each in order.

    A pair of different tokens costs more than two gaps, so this is a longest common subsequence.
    Of several the authors' way back takes the last token of the source before that of the target.
    """
    best = np.zeros((len(of_source) + 1, len(of_target) + 1), np.int32)
    for i, token in enumerate(of_source):
        paired = (best[i, :-1] + 1) * (of_target == token)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], paired))
    i, j = len(of_source), len(of_target)
    while i and j:
        if best[i, j] == best[i, j - 1]:
            j -= 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            yield i, j


def _rows(bounds, rows, name):
    """The first row and the end of a part (a, b) of `rows`; a number b is (0, b)."""
    part = bounds if isinstance(bounds, Sequence) else (0.0, bounds)
    is_pair = len(part) == 2 and all(isinstance(one, numbers.Real) for one in part)
    if not (is_pair and 0 <= part[0] <= part[1] <= 1):
        raise InputError(
            f"{name}={bounds!r} must be a number of 0 to 1, the part of the steps, or two, from "
            "which to which part."
        )
    return int(part[0] * rows), int(part[1] * rows)
