"""One episode, used by training, evaluation, `play` and `ask` alike.

The episode parses a policy's text, runs its code, composes the reply, and determines its end. A
session lost to an infrastructure failure is rebuilt once by replay, in a worker of its own; if that
fails too, the episode ends as infrastructure, unless the block is found to be the cause. A backend
that this machine lacks raises an exception instead, as no episode could run. What model code causes
is an outcome of its turn, never an infrastructure failure.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from PIL import Image

from ..sandbox import Execution, SandboxError
from ..sandbox.plain_text import escape_lines
from ..sandbox.types import (
    Sandbox,
    SandboxUnavailableError,
    SeparableSandbox,
    Session,
    SessionState,
)
from .grading import grade
from .lost_sessions import LOST_TWICE, run_apart
from .parsing import INTERFACES, Interface, parse_action, requests_in
from .picture import DEFAULT_MAX_PIXELS, fit_picture, kept_picture
from .protocol import question_message, system_prompt, tool_reply
from .text.unicode_text import escape_surrogates
from .types import Action, Ending, Message, Task, Tokens, Trajectory, Turn

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EpisodeState:
    """State of an episode, from which any number of episodes can be resumed.

    Attributes:
        seed: Random seed of the episode.
        turns: Turns so far.
        ending: Reason of its end; None while it is running.
        session: State of its session; None where no code ran.
        sessions_lost: Number of sessions lost while they ran its code.
    """

    seed: int
    turns: tuple[Turn, ...]
    ending: Ending | None
    session: SessionState | None
    sessions_lost: int = 0


class Episode:
    """An episode of one policy on one task; not thread-safe.

    Args:
        task: Task; its answer is never passed on.
        sandbox: Sandbox of the code; a session is opened at the first block.
        interface: Tool of the policy.
        max_turns: Maximum number of turns; code in the last one is not run.
        system_prompt: System message; None for the interface's own, ``""`` for none.
        seed: Random seed of the policy's sampling, which the session never learns.
        max_pixels: Maximum number of pixels per image; larger ones are downscaled, for policy and
            code alike. Images that code shows are downscaled for the policy.
    """

    def __init__(  # noqa: PLR0913 - all settings of an episode, each optional
        self,
        task: Task,
        sandbox: Sandbox,
        *,
        interface: Interface = "code",
        max_turns: int = 6,
        system_prompt: str | None = None,
        seed: int = 0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        if max_turns < 1:
            raise ValueError(f"max_turns must be at least 1, got {max_turns}")
        if interface not in INTERFACES:
            raise ValueError(f"unknown interface {interface!r}: one of {', '.join(INTERFACES)}")
        self.task = task
        self.interface: Interface = interface
        self.max_turns = max_turns
        self.seed = seed
        self.max_pixels = max_pixels
        self.images = tuple(fit_picture(image, max_pixels) for image in task.images)
        self.opening = _opening(task, self.images, interface, system_prompt)
        self.messages: list[Message] = list(self.opening)
        self.turns: list[Turn] = []
        self.ending: Ending | None = None
        self.failure: Exception | None = None  # cause of an infrastructure failure
        self.sessions_lost = 0  # while they ran code, also where the episode went on
        self._sandbox = sandbox
        self._session: Session | None = None
        self._state: SessionState | None = None

    def step(self, text: str) -> Turn:
        """Execute the policy's next text; return the turn, with a reply unless it is the last.

        Lone surrogates in it are replaced by escapes: they cannot be encoded.

        Raises:
            RuntimeError: The episode is over.
            SandboxUnavailableError: This machine lacks what the sandbox's backend needs.
        """
        self._require_open()
        text = escape_surrogates(text)
        action = parse_action(text, interface=self.interface)
        turns_left = self.max_turns - len(self.turns) - 1
        if action.kind == "answer":
            return self._end(Turn(text, action), Ending.ANSWERED)
        if action.kind == "malformed":
            return self._end(Turn(text, action), Ending.MALFORMED)
        if turns_left == 0:
            return self._end(Turn(text, action), Ending.TURN_LIMIT)
        execution = self._run(action.content)
        if execution is None:
            return self._end(Turn(text, action), Ending.INFRASTRUCTURE)
        images = tuple(kept_picture(image) for image in execution.images)
        execution = replace(execution, images=images)
        requests = requests_in(text, interface=self.interface)
        reply = tool_reply(
            execution, turns_left=turns_left, requests=requests, max_pixels=self.max_pixels
        )
        return self._record(Turn(text, action, execution, reply))

    def cut(self, text: str | None = None) -> None:
        """End the episode by a token limit; ``text`` is the incomplete turn, if any."""
        self._require_open()
        if text is None:
            self.ending = Ending.TOKEN_LIMIT
            return
        reason = "cut off by a token limit"
        self._end(
            Turn(escape_surrogates(text), Action("malformed", reason, reason)), Ending.TOKEN_LIMIT
        )

    def fail(self, reason: Exception | None = None) -> None:
        """End the episode by an infrastructure failure; it is not scored."""
        self.ending = Ending.INFRASTRUCTURE
        self.failure = reason

    def note_generation(self, seconds: float | None) -> None:
        """Record the generation time of the last turn, in seconds; None where not measured."""
        self.turns[-1] = replace(self.turns[-1], generation_seconds=seconds)

    def trajectory(self, policy_id: str, tokens: Tokens | None = None) -> Trajectory:
        """Return the finished episode, graded.

        Raises:
            RuntimeError: The episode is not over.
        """
        if self.ending is None:
            raise RuntimeError("the episode has not ended; it has no trajectory yet")
        answer = self.turns[-1].action.content if self.ending is Ending.ANSWERED else None
        is_lost = self.ending is Ending.INFRASTRUCTURE
        return Trajectory(
            task_id=self.task.id,
            policy_id=policy_id,
            seed=self.seed,
            opening=self.opening,
            turns=tuple(self.turns),
            ending=self.ending,
            accuracy=None if is_lost else grade(self.task, answer),
            answer=answer,
            tokens=tokens,
            needs_picture=self.task.needs_picture,
            pass_rate=self.task.pass_rate,
            sessions_lost=self.sessions_lost,
        )

    def snapshot(self) -> EpisodeState:
        """Return the state of the episode.

        Raises:
            SandboxError: The session's state is not available.
        """
        session = self._session.snapshot() if self._session is not None else self._state
        return EpisodeState(self.seed, tuple(self.turns), self.ending, session, self.sessions_lost)

    def resume(self, state: EpisodeState) -> None:
        """Resume from ``state``, returned by an episode of the same task; repeatable."""
        self._drop_session()
        self.seed, self.turns, self.ending = state.seed, list(state.turns), state.ending
        self._state = state.session
        self.sessions_lost = state.sessions_lost
        self.messages = list(self.opening)
        for turn in self.turns:
            self._say(turn)

    def close(self) -> None:
        """End the session; a second call does nothing."""
        self._drop_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, code: str) -> Execution | None:
        """Run a block; return None where the sandbox failed twice, last on a fresh session."""
        try:
            return self._try(code)
        except SandboxUnavailableError:
            raise  # a fresh session would not help: the user has to fix this
        except SandboxError as error:
            _log.info("a session of %s was lost and is replayed: %s", *self._logged(error))
        try:
            if self._session is not None:
                self._state = self._session.snapshot()
            self._drop_session()
            return self._run_apart(code)
        except SandboxUnavailableError:
            raise
        except SandboxError as error:
            self.failure = error
            _log.warning("the sandbox failed twice, so %s is not scored: %s", *self._logged(error))
        self._drop_session()
        return None

    def _try(self, code: str) -> Execution:
        """Run a block, and count a session that is lost meanwhile."""
        session = self._opened()
        try:
            return session.run(code)
        except SandboxError:
            self.sessions_lost += 1
            raise

    def _run_apart(self, code: str) -> Execution:
        """Run a block again, where possible in a worker of its own; continue in the shared one."""
        if not isinstance(self._sandbox, SeparableSandbox):
            return self._try(code)
        execution, self._state = run_apart(self._sandbox, code, self._open_in)
        if execution is LOST_TWICE:
            self.sessions_lost += 1
            _log.warning(
                "the code of %s lost two sessions: it counts as killed", escape_lines(self.task.id)
            )
        return execution

    def _logged(self, error: Exception) -> tuple[str, str]:
        return escape_lines(self.task.id), escape_lines(str(error))

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._open_in(self._sandbox)
        return self._session

    def _open_in(self, sandbox: Sandbox) -> Session:
        if self._state is None:
            # Not the episode's seed: it is a plain function of the task's id, which code could
            # search for. One seed for all also keeps siblings and replays alike.
            return sandbox.session(self.images)
        return sandbox.restore(self._state, self.images)

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(SandboxError):
                session.close()

    def _record(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        self._say(turn)
        return turn

    def _end(self, turn: Turn, ending: Ending) -> Turn:
        self.ending = ending
        self._drop_session()
        return self._record(turn)

    def _say(self, turn: Turn) -> None:
        self.messages.append(Message("assistant", (turn.text,)))
        if turn.reply is not None:
            self.messages.append(turn.reply)

    def _require_open(self) -> None:
        if self.ending is not None:
            raise RuntimeError(f"the episode is over ({self.ending}); begin another")


def _opening(
    task: Task, images: Sequence[Image.Image], interface: Interface, prompt: str | None
) -> tuple[Message, ...]:
    prompt = system_prompt(interface) if prompt is None else escape_surrogates(prompt)
    question = question_message(task.question, images, interface=interface)
    return (Message("system", (prompt,)), question) if prompt else (question,)
