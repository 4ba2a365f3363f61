"""A session that is lost while it runs code: tried again apart, and blamed on the right one."""

import os
import signal
import time

from codedance.envs.episode import Episode
from codedance.envs.lost_sessions import ControlSession
from codedance.envs.types import Ending
from codedance.sandbox import Limits, Outcome, SandboxError, open_sandbox
from codedance.sandbox.types import SeparableSandbox, SessionLostError

from .toys import InProcessSandbox, InProcessSession, make_task

FATAL = "print('fatal')"


class Fragile(InProcessSession):
    """A session whose worker dies by some code."""

    def run(self, code):
        if "fatal" in code and self._sandbox.deaths:
            kind = self._sandbox.deaths.pop(0)
            for sandbox in self._sandbox.family if self._sandbox.kills_all else ():
                sandbox.lose_sessions()
            raise kind("the worker died")
        return super().run(code)


class Separable(InProcessSandbox):
    """Sandboxes of one machine; `deaths` are the errors that fatal code causes, in order."""

    def __init__(self, deaths=(), *, kills_all=False):
        super().__init__()
        self.deaths, self.kills_all = list(deaths), kills_all
        self.family = [self]

    def another(self):
        other = Separable()
        other.deaths, other.kills_all, other.family = self.deaths, self.kills_all, self.family
        self.family.append(other)
        return other

    def session(self, images=(), *, seed=0):
        return self._open(Fragile(self, images, seed))

    def restore(self, state, images=()):
        return self._open(Fragile(self, images, state.seed, state))


def code(text):
    return f"<code>\n```python\n{text}\n```\n</code>"


def played(sandbox, *blocks):
    episode = Episode(make_task(), sandbox)
    return episode, [episode.step(code(block)) for block in blocks]


def test_a_block_whose_session_dies_once_runs_again_and_the_episode_goes_on():
    sandbox = Separable([SessionLostError])
    episode, turns = played(sandbox, "x = 2", FATAL, "print(x)")
    assert [turn.execution.outcome for turn in turns] == [Outcome.OK] * 3
    assert (turns[1].execution.stdout, turns[2].execution.stdout) == ("fatal\n", "2\n")
    assert (episode.ending, episode.sessions_lost) == (None, 1)
    own, other = sandbox.family[1:]
    assert own.is_closed
    assert other.is_closed


def test_a_block_that_dies_twice_beside_a_living_control_is_killed():
    sandbox = Separable([SessionLostError] * 2)
    episode, turns = played(sandbox, "x = 2", FATAL, "print(x)")
    assert turns[1].execution.outcome is Outcome.KILLED
    assert "SessionKilled" in turns[1].reply.text
    assert turns[2].execution.stdout == "2\n"
    episode.step("<answer>5</answer>")
    trajectory = episode.trajectory("p")
    assert (trajectory.ending, trajectory.sessions_lost) == (Ending.ANSWERED, 2)


def test_a_block_whose_control_dies_as_well_is_lost_to_infrastructure():
    episode, _ = played(Separable([SessionLostError] * 2, kills_all=True), FATAL)
    assert episode.ending is Ending.INFRASTRUCTURE
    assert episode.trajectory("p").accuracy is None
    assert episode.trajectory("p").sessions_lost == 1


def test_other_failures_of_the_sandbox_are_never_blamed_on_the_block():
    """No process left, no core: the error names the machine."""
    episode, _ = played(Separable([SessionLostError, SandboxError]), FATAL)
    assert episode.ending is Ending.INFRASTRUCTURE


def test_a_worker_that_does_not_start_is_infrastructure():
    sandbox = Separable([SessionLostError])

    def another():
        raise SandboxError("no memory for a worker")

    sandbox.another = another
    episode, _ = played(sandbox, FATAL)
    assert episode.ending is Ending.INFRASTRUCTURE
    assert "no memory" in str(episode.failure)


def test_a_sandbox_with_one_worker_blames_nobody():
    sandbox = InProcessSandbox()
    assert not isinstance(sandbox, SeparableSandbox)
    episode = Episode(make_task(), sandbox)
    episode.step(code("print(1)"))
    sandbox.is_down = True
    episode.step(code("print(2)"))
    assert (episode.ending, episode.sessions_lost) == (Ending.INFRASTRUCTURE, 1)


def test_the_count_is_kept_in_a_copy_of_the_episode():
    episode, _ = played(Separable([SessionLostError]), FATAL)
    again = Episode(make_task(), Separable())
    again.resume(episode.snapshot())
    assert again.sessions_lost == 1


def test_a_worker_of_its_own_dies_alone():
    """As if code had killed its zygote each time: another worker lives on."""
    limits = Limits(memory_mb=64)
    with (
        open_sandbox("local", limits=limits, libraries=()) as shared,
        shared.another() as own,
        shared.another() as other,
        other.session() as surviving,
        own.session() as ending,
    ):
        control, lost = ControlSession(surviving), ControlSession(ending)
        assert len({one.process_id for one in (shared, own, other)}) == 3
        assert lost.has_survived()
        os.kill(own.process_id, signal.SIGKILL)
        while lost.has_survived():  # until its process has ended; a replay shows
            time.sleep(0.01)
        assert control.has_survived()
