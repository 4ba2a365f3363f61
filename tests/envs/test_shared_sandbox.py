import os

import pytest
from codedance.envs import shared_sandbox
from codedance.envs.shared_sandbox import SharedSandbox
from codedance.sandbox import Limits

from .toys import InProcessSandbox


@pytest.fixture
def opened(monkeypatch):
    sandboxes = []

    def open_one(backend, *, limits):
        sandboxes.append(InProcessSandbox())
        return sandboxes[-1]

    monkeypatch.setattr(shared_sandbox, "open_sandbox", open_one)
    monkeypatch.setattr(shared_sandbox, "_opened", {})
    monkeypatch.setattr(shared_sandbox, "_users", {})
    return sandboxes


def test_nothing_is_opened_before_it_is_used(opened):
    SharedSandbox().close()
    assert opened == []


def test_one_sandbox_serves_all_of_the_same_limits(opened):
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


def test_a_state_is_restored_by_it(opened):
    with SharedSandbox() as shared:
        session = shared.session(seed=3)
        session.run("x = 5")
        assert shared.restore(session.snapshot()).run("print(x)").stdout == "5\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_its_own_and_leaves_its_parents_alone(opened):
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


def test_an_unknown_backend_is_refused_at_once():
    with pytest.raises(ValueError, match="did you mean 'docker'"):
        SharedSandbox("doker")
