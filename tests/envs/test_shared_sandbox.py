import os

import pytest
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.visual_code import VisualCodeEnv
from codedance.sandbox import Limits, SandboxError, open_sandbox
from codedance.sandbox import shared as shared_sandbox
from codedance.sandbox.opening import BACKENDS
from codedance.sandbox.shared import SharedSandbox
from codedance.sandbox.types import SandboxUnavailableError

from .toys import InProcessSandbox, ToySuite


@pytest.fixture
def opened(monkeypatch):
    sandboxes = []

    def open_one(backend, *, limits):
        sandboxes.append(InProcessSandbox())
        return sandboxes[-1]

    monkeypatch.setattr(shared_sandbox, "open_sandbox", open_one)
    monkeypatch.setattr(shared_sandbox, "_opened", {})
    monkeypatch.setattr(shared_sandbox, "_users", {})
    monkeypatch.setattr(shared_sandbox, "_usable", set())
    return sandboxes


def test_nothing_is_opened_before_the_first_use(opened):
    SharedSandbox().close()
    assert opened == []


def test_environments_with_the_same_limits_share_one_sandbox(opened):
    one, two, other = SharedSandbox(), SharedSandbox(), SharedSandbox(limits=Limits(memory_mb=64))
    for shared in (one, two, two, other):
        shared.session()
    assert len(opened) == 2
    assert opened[0].opened == 3


def test_the_last_user_closes_it_and_a_later_one_opens_another(opened):
    one, two = SharedSandbox(), SharedSandbox()
    assert one.tier == two.tier
    one.close()
    one.close()
    assert not opened[0].is_closed
    two.close()
    assert opened[0].is_closed
    with SharedSandbox() as third:
        third.session()
        assert len(opened) == 2
    assert opened[1].is_closed


def test_it_restores_a_state(opened):
    with SharedSandbox() as shared:
        session = shared.session(seed=3)
        session.run("x = 5")
        assert shared.restore(session.snapshot()).run("print(x)").stdout == "5\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_its_own_sandbox_and_keeps_its_parents_open(opened):
    shared = SharedSandbox()
    shared.session()
    child = os.fork()
    if child == 0:
        shared.close()
        is_untouched = not opened[0].is_closed
        shared.session()
        os._exit(0 if is_untouched and len(opened) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(opened) == 1
    shared.close()
    assert opened[0].is_closed


def test_an_unknown_backend_is_rejected_immediately():
    with pytest.raises(ValueError, match="did you mean 'docker'"):
        SharedSandbox("doker")


@pytest.mark.parametrize("name", ["ray", "Docker", "", "kubernetes"])
def test_an_unknown_name_is_rejected_when_the_environment_is_created(name):
    with pytest.raises(ValueError, match="one of local, docker, unsafe-subprocess"):
        VisualCodeEnv(ToySuite(), sandbox=name)
    with pytest.raises(ValueError, match="one of local, docker, unsafe-subprocess"):
        EpisodeHost(HostSettings(sandbox=name))


@pytest.mark.parametrize("name", BACKENDS)
def test_open_sandbox_knows_every_name(name):
    with pytest.raises(ValueError, match="is one process"):  # raised after the name was accepted
        open_sandbox(name, limits=Limits(processes=2))


def test_it_is_opened_once_per_process_as_a_check(opened):
    first = SharedSandbox()
    first.require()
    first.close()
    assert opened[0].is_closed
    SharedSandbox().require()
    assert len(opened) == 1
    SharedSandbox(limits=Limits(memory_mb=64)).require()
    assert len(opened) == 2


def refuse(monkeypatch, error):
    def open_one(backend, *, limits):
        raise error

    monkeypatch.setattr(shared_sandbox, "open_sandbox", open_one)
    monkeypatch.setattr(shared_sandbox, "_usable", set())


LACK = SandboxUnavailableError("no Docker engine answers; start it")


def test_a_missing_requirement_is_reported_before_an_episode_starts(monkeypatch):
    refuse(monkeypatch, LACK)
    env = VisualCodeEnv(ToySuite(), sandbox="docker")
    for _ in range(2):
        with pytest.raises(SandboxUnavailableError, match="start it"):
            env.reset(seed=0)
    assert not env.has_begun
    env.close()
    host = EpisodeHost(HostSettings(sandbox="docker"))
    with pytest.raises(SandboxUnavailableError, match="start it"):
        host.open(host.tasks(1)[0].id, seed=0)
    host.close()


def test_unsupported_limits_are_reported_before_an_episode_starts():
    env = VisualCodeEnv(ToySuite(), limits=Limits(processes=2))
    with pytest.raises(ValueError, match=r"Limits\.processes=2"):
        env.reset(seed=0)
    env.close()


def test_without_a_tool_nothing_is_opened(monkeypatch):
    refuse(monkeypatch, LACK)
    env = VisualCodeEnv(ToySuite(), sandbox="docker", interface="text")
    env.reset(seed=0)
    assert env.step("<answer>1</answer>")[2]
    env.close()


def test_a_temporary_failure_is_left_to_the_session_that_needs_the_sandbox(monkeypatch):
    refuse(monkeypatch, SandboxError("the worker did not start"))
    env = VisualCodeEnv(ToySuite())
    env.reset(seed=0)
    *_, truncated, info = env.step("```python\nprint(1)\n```")
    assert (truncated, info["is_valid"]) == (True, False)
    env.close()
