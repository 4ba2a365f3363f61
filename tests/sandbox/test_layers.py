"""Isolation by layers, for the benchmark: each is effective, and none satisfies a minimum level."""

import sys

import pytest
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import SandboxUnavailableError
from codedance.sandbox.worker.layers import LAYERS

from .conftest import SMALL, open_isolated

PROBE = """
import resource
def is_refused(attempt):
    try: attempt()
    except OSError: return True
    return False
import os, socket
nameless = os.O_TMPFILE | os.O_WRONLY  # leaves nothing behind
bounded = resource.getrlimit(resource.RLIMIT_NOFILE)[1] == 64
print(bounded, is_refused(socket.socket), is_refused(lambda: os.open('/var', nameless)))
"""


@pytest.mark.parametrize(
    ("last", "seen"),
    [
        ("rlimits", "True False"),
        ("seccomp", "True True"),
        ("landlock", "True True True"),
    ],
)
def test_each_layer_includes_the_previous_ones(last, seen):
    with open_isolated(f"layers:{last}", libraries=()) as sandbox, sandbox.session() as session:
        assert sandbox.tier.startswith("none: a measurement of rlimits")
        assert session.run(PROBE).stdout.startswith(seen)


@pytest.mark.parametrize("last", LAYERS)
def test_layers_are_below_every_minimum_level(last):
    plan = ZygotePlan(ask_interpreter(sys.executable), (), SMALL, f"layers:{last}")
    with pytest.raises(SandboxUnavailableError, match="below the floor 'confined'"):
        LocalSandbox(plan, floor="confined")
