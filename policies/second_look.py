"""How a policy is asked to check an answer of its own, and how a program reads past that."""

from __future__ import annotations

import re

SECOND_LOOK = "{question}\nA first look gave: {answer}. Look again and answer."

_NOTE = re.compile(r"\nA first look gave: [^\n]*\. Look again and answer\.(?=\n|\Z)")


def second_look(question: str, answer: str) -> str:
    """Return a question as it is asked again, with the answer that a first look gave."""
    return SECOND_LOOK.format(question=question, answer=" ".join(answer.split()))


def plain_question(text: str) -> str:
    """Return a question without the note of a second look, so that it is known again.

    >>> plain_question(second_look("How many dots are there?", "3"))
    'How many dots are there?'
    """
    return _NOTE.sub("", text)
