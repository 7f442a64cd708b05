"""Answers of models: cleaned, and each way of being useless told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtbpr.captioning.instructions import CONSTANT
from jaxtbpr.workers.answers import Limits, check, clean

LIMITS = Limits(min_words=5, max_words=40)
GOOD = "A young woman with long hair is wearing a red coat and carrying a black bag."


def kind(text, **more):
    refusal = check(clean(text), LIMITS, **more)
    return refusal and refusal.kind


@pytest.mark.parametrize(
    "said",
    [
        GOOD,
        f'"{GOOD}"',
        f"“{GOOD}”",
        f"  {GOOD}\n",
        f"Caption: {GOOD}",
        f"Sure! Here is a description of the person:\n\n{GOOD}",
        f"```\n{GOOD}\n```",
        f"**Description:** {GOOD}",
        f"<think>She has a coat.\nIt is red.</think>\n{GOOD}<|im_end|>",
        f"Got it, a coat.\n</think>\n\n{GOOD}",  # the tag that opens it was in the instruction
        f"<|im_start|>assistant\n{GOOD}",
        GOOD + "\ud83d",  # half an emoji
        f"The image shows {GOOD[0].lower()}{GOOD[1:]}",
        GOOD.replace(" with", "\nwith  ").replace("coat", "coat "),
    ],
)
def test_the_caption_is_found_in_what_a_model_says(said):
    assert clean(said) == GOOD
    assert check(clean(said), LIMITS) is None


@given(st.text() | st.from_regex(r"(Sure, |\"|Caption: |\*\*|<think>|the image shows )+.*"))
def test_cleaning_twice_is_cleaning_once(text):
    assert clean(clean(text)) == clean(text)


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_is_judged_by_a_sentence(text, instruction):
    refusal = check(clean(text), LIMITS, instruction=instruction)
    assert refusal is None or (refusal.kind and refusal.reason)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "empty"),
        (" ... \n", "empty"),
        ("I'm sorry, but I can't help with describing the people in this image.", "refusal"),
        ("As an AI, I do not describe the person in the image.", "refusal"),
        ("There is no person visible in the image that I was given.", "refusal"),
        ("I’m sorry, but I can’t describe the person in this image.", "refusal"),
        ("Sorry, but I'm not able to help with the person in the image.", "refusal"),
        ("There is no person in the image to describe, only a wall.", "refusal"),
        ("The image does not contain any people; it is of an empty street.", "refusal"),
        ("There are no people in this picture of an empty street.", "refusal"),
        ("It seems that no image was attached to the message.", "refusal"),
        ("I don't see an image attached; the person is not in it.", "refusal"),
        ("I do not have the ability to view images with a person.", "refusal"),
        ("A man with no bag is in a coat on a street with no people around him.", None),
        ("A man in the coat. Note: I left out the shoes.", "not alone"),
        ("A man in the coat.\nHuman: And the shoes?\nAssistant: They are white.", "not alone"),
        ("- Age and sex: the woman\n- Upper garment: a coat with a belt", "not alone"),
        ("A woman is here.\n- Hair: long\n- Coat: red with a belt", "not alone"),
        ("1. A woman is in the red coat.\n2. A man is in the blue coat.", "not alone"),
        ("A woman in her 30s - tall - is in the 1.5 m coat.", None),
        ("A woman in a red coat with [bag] and the white shoes.", "unfilled"),
        ("The {person} is wearing a red coat and the white shoes.", "unfilled"),
        ("A man in a coat and unspecified shoes is walking.", "unseen"),
        ("A man in a coat, the shoes are not visible.", "unseen"),
        ("A woman in a coat.", None),
        ("A man.", "short"),
        ("Red coat, blue jeans, white shoes.", "language"),
        ("In a coat.", "short"),
        ("A man in " + "a red coat and the blue hat with " * 7 + "shoes.", "repeated"),
        (" ".join(f"the {chr(97 + k)}coat in" for k in range(20)), "long"),
        ("Une femme avec un manteau rouge et un sac noir.", "language"),
        ("Eine Frau mit einem roten Mantel und der Tasche.", "language"),
        ("Una mujer con un abrigo rojo y una bolsa negra.", "language"),
        ("一位穿着红色外套的年轻女子背着黑色的包", "language"),
        ("Женщина в красном пальто и с чёрной сумкой", "language"),
        ("The man is in a black jacket, 灰色 trousers and white shoes.", "language"),
        ("The woman is in a décolleté coat with a café’s sign.", None),
        ("The woman is in red red red shoes.", "repeated"),
        ("A man is in a coat. A man is in a coat.", "repeated"),
        ("Describe the person in the image in one English sentence. Leave out it.", "echo"),
    ],
)
def test_useless_answers_are_told_apart(said, expected):
    assert kind(said, instruction=CONSTANT) == expected


def test_a_sentence_that_was_cut_off_is_refused_but_not_a_whole_one():
    assert kind(GOOD[:-20], finish="length") == "cut off"
    assert kind(GOOD, finish="length") is None


def test_an_answer_cut_off_before_its_first_word_is_told_as_such():
    refusal = check("", Limits(5, 80), finish="length")
    assert (refusal.kind, "raise max_tokens" in refusal.reason) == ("empty", True)
    assert "max_tokens" not in check("", Limits(5, 80)).reason


def test_an_answer_must_differ_from_the_earlier_ones_of_its_group():
    assert kind(GOOD, earlier=[GOOD.upper()]) == "same"
    assert kind(GOOD, earlier=["A man."]) is None


def test_the_number_of_words_is_told():
    assert check("In a coat.", LIMITS).reason == "it has 3 words; at least 5 are required"
