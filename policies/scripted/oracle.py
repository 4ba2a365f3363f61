"""A policy of hand-written programs, chosen from the conversation alone: it never sees the answer.

It answers the nano suite exactly, counts nuclei by a watershed, judges NLVR's simpler statements
from an inventory of the shapes, and answers "unknown" where it has no program for a question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...envs.suites.nano.suite import family_of
from ...envs.types import Message
from ..interface import Conversation, Reply, Sampling
from ..second_look import plain_question
from .nlvr_program import INVENTORY, is_statement, judge
from .nuclei_program import COUNT_NUCLEI, is_nuclei_question

LOOK = "<think>I look closer.</think>\n<code>\n```python\n{code}```\n</code>"
KNOWN = "<think>Now I know.</think>\n<answer>{answer}</answer>"
SEEN = "<think>I can see it.</think>\n<answer>{answer}</answer>"
UNKNOWN = "<think>I know no program for this question.</think>\n<answer>unknown</answer>"


Program = Callable[[str], str | None]
"""Returns the code that answers a question; None for a question of another kind."""

_OWN: dict[str, Program] = {}


def register_program(program: Program) -> Program:
    r"""Register a program for custom questions with the oracle and curation's teacher.

    The code has access to ``input_image``, never to the answer; its last printed word is the
    answer. Registering a function of the same name again replaces it.

    >>> @register_program
    ... def level(question):
    ...     return "print(input_image.getpixel((0, 0)))" if "grey level" in question else None
    >>> program_for("What is the grey level?")
    'print(input_image.getpixel((0, 0)))\n'
    >>> unregister_program("level")
    """
    _OWN[program.__name__] = program
    return program


def unregister_program(name: str) -> None:
    """Remove a registered program; an unknown name raises `KeyError`."""
    del _OWN[name]


class OraclePolicy:
    """Runs the program for the question, then reads the answer from its output."""

    id = "oracle"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the program, or the answer once the program's output is there."""
        del sampling
        return [Reply(next_text(conversation.messages)) for conversation in conversations]


def next_text(messages: Sequence[Message]) -> str:
    """Return the oracle's next text for a conversation that started with a question."""
    question = question_of(messages)
    code = program_for(question)
    if code is None:
        return UNKNOWN
    if all(message.role != "assistant" for message in messages):
        return LOOK.format(code=code)
    return KNOWN.format(answer=read_answer(question, messages[-1]))


def question_of(messages: Sequence[Message]) -> str:
    """Return the text of the first user message, without the note of a second look (`scale`).

    Raises:
        ValueError: There is no user message.
    """
    for message in messages:
        if message.role == "user":
            return plain_question(message.text)
    raise ValueError("expected a conversation with a user message, got none")


def program_for(question: str) -> str | None:
    """Return the program that answers a question; None where there is none."""
    family = family_of(question)
    if family is not None:
        return family.programs(question)["exact"]
    for own in _OWN.values():
        if (code := own(question)) is not None:
            return code if code.endswith("\n") else f"{code}\n"
    if is_nuclei_question(question):
        return COUNT_NUCLEI
    return INVENTORY if is_statement(question) else None


def read_answer(question: str, reply: Message) -> str:
    """Read the answer to a question from the reply to its program."""
    output = tool_output(reply)
    family = family_of(question)
    if family is not None:
        try:
            return family.read(output, reply.images)
        except (IndexError, ValueError):  # the reply lacks the program's output
            return "unknown"
    if is_statement(question):
        return judge(question, output)
    lines = output.split()
    return lines[-1] if lines else "unknown"


def tool_output(reply: Message) -> str:
    """Return the text between the tags of a tool's reply, without them."""
    text = reply.text.removeprefix("<tool_response>\n")
    return text.rpartition("</tool_response>")[0]
