"""Reading the letter, and rewarding it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.rewards import (
    LETTERS,
    NO_ANSWER,
    completion_text,
    extract_answer,
    multiple_choice_feedback_reward,
    multiple_choice_reward,
)

# {} stands for every letter in turn: all are read alike.
CLEAR = [
    "{}", " {}", " {}\n\nSo", "{}.", "({})", "({}).", "{})", "{}) 12 kg", "{}: 12 kg", "**{}**",
    "Answer: {}", "answer:{}", "Answer: ({})", "Answer: **{}**", "The answer is {}.",
    "So the answer is: {}", "Answer:\n{}", "The correct option is {}.", "Answer: option {}",
    "v = 12 m/s.\nAnswer: {}", "It follows:\n{}", "I think it is ({}).", r"thus \boxed{{{}}}.",
    "<answer>{}</answer>", "<answer>\n{}\n</answer>", "<answer>({})</answer>",
    "<answer>**{}**</answer>", "<answer>{}: 12 kg</answer>", "<ANSWER>{}</ANSWER>",
    "<reasoning>Answer: A or B?</reasoning><answer>{}</answer>",
    "<answer>A</answer> No. <answer>{}</answer>",
    "A) 3 kg\nB) 4 kg\nAnswer: {}",
    " {}\n\nQuestion: And now?\nA) 1\nB) 2\nAnswer: A",
    "Answer: {}\nQ2: What else?\nAnswer: C",
    "Answer: {}. I repeat, the answer is {}.",
]  # fmt: skip
NONE = [
    "", " ", "A mass of 3 kg falls.", "A 12 kg mass falls.", "The answer is A mass of 3 kg.",
    "The answer is a mass.", "As I said", "Because", "B is wrong", "C-14 decays", "Answer: C-14",
    "Answer: 12", "Answer: E", "E", "b", "A, B and C are wrong", "Answer is not B",
    "Answer: A\nAnswer: B", "A\nB\nC", "A) 1\nB) 2", "<answer>A or B</answer>",
    "<answer>A) or B)</answer>", "<answer></answer>", "<answer>12 kg</answer>",
    "<answer>B</answer><answer>none</answer>", "<answer>A mass</answer>", "<answer>",
    "It is (A) or (B), maybe", "Vitamin C helps.", "charge in C", "Question: what?\nAnswer",
]  # fmt: skip


@pytest.mark.parametrize("text", CLEAR)
@pytest.mark.parametrize("letter", LETTERS)
def test_a_clear_answer_is_read(text, letter):
    assert extract_answer(text.format(letter, letter)) == letter


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_answer_or_not_a_single_one_is_none(text):
    assert extract_answer(text) is None


def test_letters_in_tags_may_be_small():
    assert extract_answer("<answer>b</answer>") == "B"


OPTIONS = ["iron", "neon", "12 kg", "sodium chloride"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("iron", "A"), (" neon", "B"), (" Neon.", "B"), ("NEON", "B"), ('"neon".', "B"),
        ("'neon.'", "B"), ("\n\n neon\nIt is a gas.", "B"), ("12 kg", "C"),
        ("sodium chloride\n\nQuestion: And this?\nOptions: iron, zinc\nAnswer: iron", "D"),
        ("neon\niron", "B"), ("B", "B"), ("Answer: C", "C"), ("<answer>D</answer>", "D"),
        ("neon\nAnswer: C", "C"),
    ],
)  # fmt: skip
def test_an_option_may_be_named_by_its_text(text, letter):
    assert extract_answer(text, OPTIONS) == letter


@pytest.mark.parametrize(
    "text",
    ["", "ne", "neon lamps", "It is neon", "iron, neon", "sodium", "12", "so\nneon", "'", ".",
     "zinc", "<answer>neon</answer>", "1. neon"],
)  # fmt: skip
def test_a_part_of_a_line_or_of_an_option_is_no_answer(text):
    assert extract_answer(text, OPTIONS) is None


@given(st.permutations(OPTIONS), st.sampled_from(OPTIONS))
def test_texts_are_read_alike_in_every_place(options, text):
    assert extract_answer(f" {text}", options) == LETTERS[options.index(text)]
    assert extract_answer(f" {text}") is None


def test_letters_are_read_alike_whether_options_are_given_or_not():
    for text in [*CLEAR, *NONE]:
        for letter in LETTERS:
            filled = text.format(letter, letter) if text in CLEAR else text
            assert extract_answer(filled, ["w", "x", "y", "z"]) == extract_answer(filled)


def test_an_option_that_reads_as_a_letter_is_an_answer_only_where_both_agree():
    assert extract_answer("C", ["C", "H", "N", "O"]) is None
    assert extract_answer("C", ["H", "N", "C", "O"]) == "C"
    assert extract_answer("N", ["C", "H", "N", "O"]) == "C"
    assert extract_answer("A. niger", ["E. coli", "A. niger"]) is None
    assert extract_answer("<answer>C</answer>", ["C", "H", "N", "O"]) == "C"


def test_case_decides_only_between_options_that_differ_in_nothing_else():
    assert extract_answer("Co", ["CO", "Co"]) == "B"
    assert extract_answer("co", ["CO", "Co"]) is None
    assert extract_answer("x", ["x.", "x"]) is None


@given(st.text(alphabet="ABCD ()<>answer:/.\n", max_size=60))
def test_any_text_gives_a_letter_or_none(text):
    assert extract_answer(text) in (*LETTERS, None)


def test_rewards_are_one_or_zero_in_order():
    completions = ["Answer: B", "Answer: C", "who knows"]
    assert multiple_choice_reward(completions, answer=["B", "B", "B"]) == [1.0, 0.0, 0.0]


def test_feedback_says_what_is_wrong_and_never_the_right_letter():
    pairs = multiple_choice_feedback_reward(["Answer: B", "Answer: C", "?"], answer=["B", "B", "B"])
    assert pairs == [(1.0, None), (0.0, "C is wrong."), (0.0, NO_ANSWER)]
    assert extract_answer(NO_ANSWER) is None


def test_options_answered_by_text_are_rewarded_and_named_in_the_feedback():
    completions = [" neon", " Iron.\nBecause", " argon", "B", "A"]
    columns = {"answer": ["B"] * 5, "options": [OPTIONS] * 5}
    pairs = multiple_choice_feedback_reward(completions, **columns)
    assert pairs == [
        (1.0, None), (0.0, "Iron is wrong."), (0.0, NO_ANSWER), (1.0, None), (0.0, "A is wrong.")
    ]  # fmt: skip
    assert multiple_choice_reward(completions, **columns) == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert "letter" not in NO_ANSWER


def test_a_row_without_options_is_answered_by_letters():
    columns = {"answer": ["B", "B"], "options": [None, OPTIONS]}
    assert multiple_choice_reward(["neon", "neon"], **columns) == [0.0, 1.0]


def test_chat_completions_are_read_from_what_the_assistant_said():
    chat = [{"role": "assistant", "content": "<answer>B</answer>"}]
    tool = [{"role": "tool", "content": "Answer: C"}, *chat, {"role": "assistant", "content": None}]
    assert multiple_choice_reward([chat, tool], answer=["B", "B"]) == [1.0, 1.0]


def test_the_hosts_other_columns_are_let_through():
    rewards = multiple_choice_reward(
        prompts=["?"], completions=["B"], answer=["B"], completion_ids=[[1]], trainer_state=None,
        options=[["x", "y"]],
    )  # fmt: skip
    assert rewards == [1.0]


@pytest.mark.parametrize(
    ("answer", "columns", "message"),
    [
        (["B", "E"], {}, "row 1: expected an answer among A, B, C, D, found 'E'"),
        (
            ["B", "C"],
            {"options": [["x", "y"]] * 2},
            "row 1: expected an answer among A, B, found 'C'",
        ),
        (["B", "42"], {"options": [None, None]}, "row 1: expected an answer among A, B, C, D"),
        (["B"], {}, "argument 2 is shorter"),
        (["B", "B"], {"options": [["x", "y"]]}, "argument 3 is shorter"),
    ],
)
def test_answers_outside_the_options_name_the_row(answer, columns, message):
    with pytest.raises(ValueError, match=message):
        multiple_choice_reward(["B", "B"], answer=answer, **columns)


def test_a_completion_of_another_type_is_refused():
    with pytest.raises(TypeError, match="expected text or a list of chat messages, found int"):
        completion_text(3)


@pytest.mark.parametrize("function", [multiple_choice_reward, multiple_choice_feedback_reward])
def test_all_answers_can_be_checked_before_a_run(function):
    rows = [{"answer": "B", "options": ["x", "y"]}, {"answer": "C", "options": None}]
    function.check_rows(rows)
    with pytest.raises(ValueError, match=r"^mine, row 2: expected an answer among A, B, found 'C'"):
        function.check_rows([*rows, {"answer": "C", "options": ["x", "y"]}], "mine, ")
    with pytest.raises(ValueError, match="row 0: expected an answer among A, B, C, D, found None"):
        function.check_rows([{"prompt": "x"}])
