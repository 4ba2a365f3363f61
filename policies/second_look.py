"""Prompt that asks a policy to check its own answer, and its removal from a question."""

from __future__ import annotations

import re

SECOND_LOOK = "{question}\nA first look gave: {answer}. Look again and answer."

_NOTE = re.compile(r"\nA first look gave: [^\n]*\. Look again and answer\.(?=\n|\Z)")


def second_look(question: str, answer: str) -> str:
    """Return the question of a second look, with the answer of the first."""
    return SECOND_LOOK.format(question=question, answer=" ".join(answer.split()))


def plain_question(text: str) -> str:
    """Return a question without the note of a second look.

    >>> plain_question(second_look("How many dots are there?", "3"))
    'How many dots are there?'
    """
    return _NOTE.sub("", text)
