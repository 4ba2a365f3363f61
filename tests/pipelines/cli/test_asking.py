"""`ask` reports the families a model was trained with, and a missing answer."""

from __future__ import annotations

import contextlib
import json

import pytest
from codedance.envs.suites.nano.suite import FAMILIES as SUITE
from codedance.envs.suites.nano.suite import family_of
from codedance.pipelines.cli.episodes.asking import match_family
from codedance.policies.interface import PolicyUnavailableError, Reply
from codedance.sandbox import SandboxError

from ..makers import make_picture

FAMILIES = {
    "count": ["How many {colour} dots are there?", "Count the {colour} dots."],
    "digit": ["Which digit is in the frame?"],
}


@pytest.mark.parametrize(
    ("question", "family"),
    [
        ("How many red dots are there?", "count"),
        ("how many  BLUE dots are there", "count"),
        ("Count the purple dots.", "count"),
        ("Count the dark-green dots.", None),
        ("How many orange dots are there?", None),
        ("How many {colour} dots are there?", None),
        ("How many  dots are there?", None),
        ("How many red-ish dots are there?", None),
        ("How many red red dots are there?", None),
        ("How many red dot are there?", None),
        ("How many dots are there that are red?", None),
        ("How many red dogs are there?", None),
        ("Is it true: how many red dots are there?", None),
        ("Count the reds dots.", None),
        ("Which digit is in the frame", "digit"),
        ("Which digit is in the frame?", "digit"),
        ("How many red objects are there?", None),
        ("How many red dots are there? Also sing.", None),
        ("", None),
        ("How many .* dots are there?", None),
    ],
)
def test_question_is_matched_to_its_family(question, family):
    assert match_family(question, FAMILIES) == family


TAUGHT = {name: family.phrasings for name, family in SUITE.items()}


@pytest.mark.parametrize("family", SUITE)
def test_the_colours_of_a_family_are_those_that_its_questions_name(family):
    for phrase in SUITE[family].phrasings:
        for colour in (
            "red",
            "green",
            "blue",
            "yellow",
            "purple",
            "orange",
            "pink",
            "grey",
            "disc",
        ):
            question = phrase.format(colour=colour)
            is_taught = "{colour}" not in phrase or colour in SUITE[family].colours
            assert match_family(question, TAUGHT) == (family if is_taught else None)


def test_a_letter_on_a_yellow_sign_is_in_no_question():
    assert match_family("Which letter is on the yellow sign?", TAUGHT) is None
    assert match_family("Which letter is on the purple sign?", TAUGHT) == "tag"


def test_a_placeholder_with_unknown_values_matches_nothing():
    assert match_family("How many red cats?", {"cats": ["How many {colour} cats?"]}) is None
    assert match_family("How many red dots?", {"count": ["How many {thing} dots?"]}) is None


def test_the_suites_programs_accept_exactly_the_palettes_colours_in_any_case():
    found = family_of("how many RED discs are there?")
    assert found is not None
    assert found.programs("how many RED discs are there?") == SUITE["count"].programs(
        "How many red discs are there?"
    )
    assert family_of("How many orange discs are there?") is None


class Speaker:
    """Replies with the same text at every turn."""

    id = "speaker"
    system_prompt = ""

    def __init__(self, text, **reply):
        self.text, self.given = text, reply

    def reply(self, conversations, *, sampling):
        if self.text is None:
            raise PolicyUnavailableError("http://nowhere gave no reply (401: no key)")
        return [Reply(self.text, **self.given) for _ in conversations]


LOOK = "<code>\n```python\nprint(1)\n```\n</code>"


@pytest.fixture
def asked(codedance, home, tmp_path, monkeypatch):
    """Ask a policy with a fixed reply; returns exit code, output and errors."""
    make_picture().save(tmp_path / "photo.png")

    def ask(*arguments, policy, **given):
        monkeypatch.setattr("codedance.policies.load_policy", lambda _: Speaker(policy, **given))
        return codedance("ask", str(tmp_path / "photo.png"), "What?", *arguments)

    return ask


@pytest.mark.parametrize(
    ("policy", "given", "code", "words"),
    [
        ("<answer>3</answer>", {}, 0, "answer: 3"),
        (LOOK, {}, 1, "no answer: its turns were used up (--turns 2)"),
        ("I do not know.", {}, 1, "no answer: its last turn was neither code nor an answer"),
        ("<answer>3", {"is_cut": True}, 1, "no answer: its last turn was too long and was cut"),
    ],
)
def test_ask_without_an_answer_exits_with_one(asked, policy, given, code, words):
    found, out, error = asked("--turns", "2", policy=policy, **given)
    assert (found, words in out) == (code, True), out + error


def test_the_document_is_printed_without_an_answer_too(asked):
    code, out, _ = asked("--turns", "1", "--json", policy=LOOK)
    assert (code, json.loads(out)["ending"], json.loads(out)["answer"]) == (1, "turn_limit", None)


def test_ask_with_an_unreachable_model_exits_with_three_and_the_reason(asked):
    code, _, error = asked(policy=None)
    assert code == 3
    assert "401: no key" in error
    assert "Traceback" not in error


class LostSandbox:
    """A sandbox that opens no session."""

    tier = "none"

    def session(self, images=(), *, seed=0):
        raise SandboxError("the machine is full")

    restore = session


def test_a_failing_sandbox_exits_with_three_and_is_neither_right_nor_wrong(
    asked, codedance, monkeypatch
):
    monkeypatch.setattr(
        "codedance.pipelines.config.sections.sandbox_settings.open_sandbox",
        lambda *_, **__: contextlib.nullcontext(LostSandbox()),
    )
    code, out, _ = asked(policy=LOOK)
    assert (code, "no answer: the sandbox failed" in out) == (3, True)
    code, out, _ = codedance("play", "--family", "bars", "--policy", "oracle", "--json")
    document = json.loads(out)
    assert (code, document["is_right"], document["ending"]) == (3, None, "infrastructure")


def test_help_explains_the_exit_codes_of_ask(codedance):
    _, out, _ = codedance("ask", "--help")
    words = " ".join(out.split())
    assert "Exits with 1 without an answer" in words
    assert "with 3 if the sandbox or the model's server failed" in words
