"""``codedance play``: one episode in the terminal, by the oracle, a model, or by hand."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion
from ..exit_codes import FAILED
from ..options import Json, SandboxName, Set
from ..server_options import BaseUrl, Notes, load_named, refuse_without_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ....envs.episode import Episode
    from ....envs.types import Task, Turn
    from ....sandbox.types import Sandbox


Player = Annotated[
    str,
    typer.Option(
        "--policy",
        "--by",
        help="oracle, hand, nano, or a checkpoint folder.",
        autocompletion=completion.players,
    ),
]

Difficulty = Annotated[
    str | None,
    typer.Option(
        help="easy, medium or hard.", autocompletion=completion.one_of(*completion.DIFFICULTIES)
    ),
]


def play(  # noqa: PLR0913 - the options of the command
    family: Annotated[
        str | None,
        typer.Option(help="Family of the suite.", autocompletion=completion.families),
    ] = None,
    policy: Player = "oracle",
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            "--tasks",
            help="Suite of the task.",
            autocompletion=completion.suites,
        ),
    ] = "nano",
    difficulty: Difficulty = None,
    seed: Annotated[int, typer.Option(help="Index of the task.")] = 0,
    sandbox: SandboxName = None,
    base_url: BaseUrl = None,
    notes: Notes = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Play one episode and print every turn.

    Exits with 3 if the sandbox or the model's server failed: then it is neither right nor wrong.
    """
    from ...config.home import find_home
    from ...config.presets import read_overrides
    from ...config.sections.sandbox_settings import open_configured
    from ...runs.used_sandbox import sandbox_for
    from ..document import document
    from ..output import say
    from .terminal import episode_document, picture_folder, show_picture, show_turn

    refuse_without_server(policy, {"base_url": base_url, "notes": notes}, policy)
    limits = sandbox_for(policy, sandbox, overrides=read_overrides(settings))
    task = find_task(suite, family, difficulty, seed)
    kept = find_home(make=False).root / "play" / task.id.replace("/", "-")
    folder = picture_folder(kept, is_asked_for=False)
    with (
        document(json) as publish,
        open_configured(limits) as opened,
        _begin(policy, task, opened, base_url=base_url, notes=notes) as (turns, episode),
    ):
        say(f"{task.id}: {task.question}")
        for number, image in enumerate(task.images, 1):
            show_picture(image, folder, f"picture-{number}.png")
        for number, turn in enumerate(turns, 1):
            show_turn(number, turn, folder)
        played = episode.trajectory(policy)
        is_right = None if played.accuracy is None else played.accuracy == 1.0
        if is_right is None:
            say(f"lost, neither right nor wrong: {episode.failure or 'it could not be graded'}")
        else:
            say(f"{'right' if is_right else 'wrong'}: the answer is {task.answer}")
        found = episode_document(played, task.question)
        publish({**found, "is_right": is_right, "truth": task.answer})
    if is_right is None:
        raise typer.Exit(FAILED)


def find_task(suite_name: str, family: str | None, difficulty: str | None, seed: int) -> Task:
    """Return the ``seed``-th test task of a family and difficulty.

    Raises:
        ValueError: The suite has no such task.
    """
    import difflib

    from ....envs import load_suite
    from ....envs.suites.filtered import ChosenFamilies

    suite = load_suite(suite_name, split="test")
    if family is not None and family not in suite.families:
        near = difflib.get_close_matches(family, suite.families, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(suite.families)
        raise ValueError(f"{suite_name} has no family {family!r}, only {known}{hint}")
    suite = suite if family is None else ChosenFamilies(suite, [family])
    count, difficulties = 0, set[str]()
    for index in range(len(suite)):
        task = suite[index]
        difficulties |= {task.difficulty} if task.difficulty else set()
        if (difficulty or task.difficulty) == task.difficulty:
            if count == seed:
                return task
            count += 1
    kind = "".join(
        (
            f" of family {family}" if family else "",
            f" of difficulty {difficulty}" if difficulty else "",
        )
    )
    if difficulty and difficulty not in difficulties:
        known = ", ".join(sorted(difficulties)) or "none at all"
        raise ValueError(f"{suite_name} has no difficulty {difficulty!r}, only {known}")
    raise ValueError(
        f"there is no --seed {seed}: {suite_name} has {count} test tasks{kind}, from 0"
    )


@contextmanager
def _begin(
    player: str, task: Task, sandbox: Sandbox, *, base_url: str | None, notes: str | None
) -> Generator[tuple[Iterator[Turn], Episode]]:
    """Open an episode for a player; yield its turns, as they are played, and the episode."""
    from ....envs.episode import Episode
    from ....policies.interface import Sampling
    from ....policies.rollouts.trained_with import open_episode
    from .asking import play_turns

    if player == "hand":
        with Episode(task, sandbox, system_prompt="") as episode:
            yield _by_hand(episode), episode
        return
    policy = load_named(player, base_url=base_url, notes=notes)
    with open_episode(task, sandbox, policy) as episode:
        yield play_turns(policy, episode, Sampling(temperature=0.0)), episode


def _by_hand(episode: Episode) -> Iterator[Turn]:
    from ..output import say

    say("Write Python and end it with an empty line; the image is input_image.")
    say("Or answer:  = 5")
    while episode.ending is None:
        yield episode.step(read_turn())


def read_turn() -> str:
    """Read a block of code (ended by an empty line) or ``= ANSWER``; return a policy's text.

    Raises:
        Abort: The input has ended (Ctrl-D).
    """
    lines: list[str] = []
    while True:
        try:
            line = input(">>> " if not lines else "... ")
        except EOFError:
            print(file=sys.stderr)  # noqa: T201 - ends the line of the prompt
            raise typer.Abort from None
        if not lines and line.startswith("="):
            return f"<answer>{line[1:].strip()}</answer>"
        if line.strip():
            lines.append(line)
        elif lines:
            code = "\n".join(lines)
            return f"<code>\n```python\n{code}\n```\n</code>"
