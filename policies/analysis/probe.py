"""Tool ablation: each tool reply of an episode is changed, and the rest of the episode is rerun.

At every call the reply is withheld (as if nothing had been printed), its images are blanked, or it
is swapped with a sibling's: the reply in another episode of the same family with another true
answer. The measures are whether the answer is still right, and how the true answer's
log-probability changes. A policy that ignores its tool has a dependence of 0, one that relies on it
of 1. Crops are compared with the region that contains the truth, where a task records it; that
record is used only here and is never in an observation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from ...envs.episode import EpisodeState
from ...envs.parsing import requests_in
from ...envs.picture import picture_array
from ...envs.protocol import tool_reply
from ...envs.types import Difficulty, Message, Task, Trajectory, Turn
from ...sandbox import Execution, Outcome
from ...sandbox.types import Sandbox, SessionState
from ..interface import Policy, Sampling
from ..rollouts.runner import OnLost, finish_episode
from ..rollouts.trained_with import open_episode, trained_interface

Change = Literal["withheld", "blanked", "swapped"]
CHANGES: tuple[Change, ...] = ("withheld", "blanked", "swapped")
REGION = "region"
"""Key in `Task.provenance`: left, top, right, bottom of the region with the truth, in pixels."""

_GREY = (128, 128, 128)
Box = tuple[int, int, int, int]


class AnswerScorer(Protocol):
    """Scorer of the log-probability of an answer."""

    def answer_log_probability(
        self, messages: Sequence[Message], before: str, answer: str
    ) -> float:
        """Return log p of ``answer`` as the final answer.

        Args:
            messages: Conversation, with the tool's reply last.
            before: The policy's text before its answer, the opening tag included.
            answer: Text between the tags.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProbedCall:
    """One call with one change.

    Attributes:
        family: Family of the task.
        difficulty: Difficulty of the task.
        turn: Turn of the call.
        change: Change to its reply.
        was_right: Whether the answer was right with the true reply.
        is_right: Whether the answer is right with the changed reply.
        gain: Increase of the true answer's log-probability by the true reply; None where the
            policy has no log-probabilities.
    """

    family: str
    difficulty: Difficulty
    turn: int
    change: Change
    was_right: bool
    is_right: bool
    gain: float | None


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """Effect of one change over all its calls.

    Attributes:
        change: The change.
        calls: Number of calls.
        accuracy: Accuracy with the true replies.
        changed_accuracy: Accuracy with the changed replies.
        gain: Mean increase of log-probability by the true replies; NaN without any.
    """

    change: Change
    calls: int
    accuracy: float
    changed_accuracy: float
    gain: float

    @property
    def dependence(self) -> float:
        """Lost share of the accuracy; NaN where nothing was right."""
        return 1.0 - self.changed_accuracy / self.accuracy if self.accuracy else math.nan


def probe(  # noqa: PLR0913 - keyword-only settings of one measurement
    policy: Policy,
    episodes: Sequence[tuple[Task, Trajectory]],
    *,
    sandbox: Sandbox,
    scorer: AnswerScorer | None = None,
    sampling: Sampling | None = None,
    max_turns: int = 6,
    on_lost: OnLost | None = None,
) -> Iterator[ProbedCall]:
    """Change each tool reply in turn, and let the policy continue from there.

    Args:
        policy: Policy that acted.
        episodes: Tasks, each with a finished trajectory of the policy.
        sandbox: Sandbox in which its code runs.
        scorer: Scorer of answers; None leaves log-probabilities out.
        sampling: Sampling parameters of continuations, with the true reply too; greedy by default.
        max_turns: Turn limit of the trajectories.
        on_lost: Called with the reason for each continuation that infrastructure lost.

    Yields:
        Each call with each change; left out where infrastructure lost either continuation.
    """
    sampling = sampling or Sampling(temperature=0.0)
    setting = _Setting(policy, sandbox, sampling, max_turns, on_lost or (lambda _: None))
    for task, trajectory in episodes:
        if not trajectory.is_valid:
            continue
        for number, turn in enumerate(trajectory.turns):
            if turn.execution is None or turn.reply is None:
                continue
            was_right = setting.goes_right(task, trajectory, number, turn.reply)
            turns_left = max_turns - number - 1
            for change in CHANGES:
                reply = _changed(change, episodes, task, turn, setting.reply_to(turn, turns_left))
                if reply is None:
                    continue
                gain = None
                if scorer is not None:
                    replies = turn.reply, reply
                    true, other = (_score(scorer, task, trajectory, number, r) for r in replies)
                    gain = true - other
                is_right = setting.goes_right(task, trajectory, number, reply)
                if was_right is None or is_right is None:
                    continue
                yield ProbedCall(
                    task.family, task.difficulty, number, change, was_right, is_right, gain
                )


def summarise(calls: Sequence[ProbedCall]) -> list[ProbeFigures]:
    """Return the figures of each change that was made, in a fixed order."""
    figures: list[ProbeFigures] = []
    for change in CHANGES:
        some = [call for call in calls if call.change == change]
        gains = [call.gain for call in some if call.gain is not None]
        if some:
            figures.append(
                ProbeFigures(
                    change=change,
                    calls=len(some),
                    accuracy=sum(call.was_right for call in some) / len(some),
                    changed_accuracy=sum(call.is_right for call in some) / len(some),
                    gain=sum(gains) / len(gains) if gains else math.nan,
                )
            )
    return figures


def crops_held(episodes: Sequence[tuple[Task, Trajectory]]) -> list[bool]:
    """Return for each crop of the question's image whether it contains the region with the truth.

    Tasks without a known region, and images that are not crops, are left out.
    """
    found: list[bool] = []
    for task, trajectory in episodes:
        region = region_of(task)
        if region is None or not trajectory.images:
            continue
        for turn in trajectory.tool_turns:
            for image in turn.execution.images if turn.execution is not None else ():
                box = locate(image, trajectory.images[0])
                if box is not None:
                    found.append(_holds(box, region))
    return found


def region_of(task: Task) -> Box | None:
    """Return the region with the truth; None where the task records none."""
    text = task.provenance.get(REGION)
    if text is None:
        return None
    left, top, right, bottom = (int(part) for part in text.split(","))
    return left, top, right, bottom


def locate(part: Image.Image, whole: Image.Image) -> Box | None:
    """Return the box of a pixel-identical crop in an image; None where it is not found."""
    if part.width > whole.width or part.height > whole.height:
        return None
    needle, stack = picture_array(part), picture_array(whole)
    rows, columns = whole.height - part.height + 1, whole.width - part.width + 1
    starts = np.ones((rows, columns), bool)
    for y, x in ((0, 0), (needle.shape[0] - 1, needle.shape[1] - 1), (needle.shape[0] // 2, 0)):
        starts &= (stack[y : y + rows, x : x + columns] == needle[y, x]).all(2)
    for top, left in np.argwhere(starts).tolist():
        window = stack[top : top + needle.shape[0], left : left + needle.shape[1]]
        if np.array_equal(window, needle):
            return left, top, left + part.width, top + part.height
    return None


@dataclass(frozen=True, slots=True)
class _Setting:
    policy: Policy
    sandbox: Sandbox
    sampling: Sampling
    max_turns: int
    on_lost: OnLost

    def goes_right(
        self, task: Task, trajectory: Trajectory, number: int, reply: Message
    ) -> bool | None:
        """Continue from a reply; return whether the answer is right, None if it was lost."""
        turns = (*trajectory.turns[:number], replace(trajectory.turns[number], reply=reply))
        with open_episode(
            task, self.sandbox, self.policy, max_turns=self.max_turns, seed=trajectory.seed
        ) as episode:
            state = self._session_state(episode.images, turns)
            episode.resume(EpisodeState(trajectory.seed, turns, None, state))
            found = finish_episode(self.policy, episode, sampling=self.sampling)
            if found.accuracy is None:
                self.on_lost(episode.failure)
        return None if found.accuracy is None else found.accuracy == 1.0

    def reply_to(self, turn: Turn, turns_left: int) -> Callable[[Execution], Message]:
        """Return the function that formats a reply to a turn, so that only code output changes."""
        requests = requests_in(turn.text, interface=trained_interface(self.policy))
        return partial(tool_reply, turns_left=turns_left, requests=requests)

    def _session_state(self, images: Sequence[Image.Image], turns: Sequence[Turn]) -> SessionState:
        """Rerun the blocks so far, to restore the policy's variables."""
        with self.sandbox.session(images) as session:
            for turn in turns:
                if turn.is_tool_turn and not turn.has_failed:
                    session.run(turn.action.content)
            return session.snapshot()


def _changed(
    change: Change,
    episodes: Sequence[tuple[Task, Trajectory]],
    task: Task,
    turn: Turn,
    reply_of: Callable[[Execution], Message],
) -> Message | None:
    """Return the changed reply; None where the change cannot be made at this call."""
    if turn.execution is None:
        return None
    if change == "withheld":
        return reply_of(Execution(Outcome.OK))
    if change == "blanked":
        if not turn.execution.images:
            return None
        blank = tuple(Image.new("RGB", image.size, _GREY) for image in turn.execution.images)
        return reply_of(replace(turn.execution, images=blank))
    for other, trajectory in episodes:
        is_sibling = other.family == task.family and other.answer != task.answer
        for one in trajectory.tool_turns if is_sibling else ():
            if one.execution is not None and one.execution.is_ok:
                return reply_of(one.execution)
    return None


def _score(
    scorer: AnswerScorer, task: Task, trajectory: Trajectory, number: int, reply: Message
) -> float:
    messages = list(trajectory.opening)
    for place, turn in enumerate(trajectory.turns[: number + 1]):
        messages.append(Message("assistant", (turn.text,)))
        shown = reply if place == number else turn.reply
        if shown is not None:
            messages.append(shown)
    last = trajectory.turns[-1].text if trajectory.answer is not None else ""
    before = last.partition("<answer>")[0] + "<answer>"
    return scorer.answer_log_probability(messages, before, task.answer)


def _holds(box: Box, region: Box) -> bool:
    return (
        box[0] <= region[0] and box[1] <= region[1] and box[2] >= region[2] and box[3] >= region[3]
    )
