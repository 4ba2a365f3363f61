"""Levels on kernels with fewer rights, simulated by the worker's test build."""

import sys

import pytest
from codedance.sandbox import SandboxError
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.worker import landlock

from .conftest import SMALL, has_namespaces, open_isolated
from .escapes.patched import lowered_landlock, patched_worker

needs_landlock = pytest.mark.skipif(landlock.abi() < 3, reason="the kernel's landlock is older")
needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="no user namespaces here")

FILES = """
import os
os.makedirs('a'); os.makedirs('b'); open('a/x', 'w').write('text')
def can(act):
    try: act()
    except OSError: return False
    return True
print(can(lambda: os.truncate('a/x', 1)), can(lambda: os.rename('a/x', 'b/x')))
"""


def open_isolated_or_raise(isolation):
    """Open a sandbox where its refusal is what a test is about, so that nothing is skipped."""
    plan = ZygotePlan(ask_interpreter(sys.executable), (), SMALL, isolation)
    return LocalSandbox(plan, floor="none")


@needs_landlock
@pytest.mark.parametrize(
    ("abi", "words", "seen"),
    [
        (1, "landlock 1 (files cannot be moved between folders, ", "False False"),
        (2, "landlock 2 (files cannot be truncated by name)", "False True"),
        (3, "landlock 3, rlimits", "True True"),
    ],
)
def test_the_tier_says_what_an_older_landlock_cannot_restrict(abi, words, seen):
    with lowered_landlock(abi), open_isolated("confined", libraries=()) as sandbox:
        assert words in sandbox.tier
        with sandbox.session() as session:
            assert session.run(FILES).stdout == f"{seen}\n"


def test_confined_is_refused_without_landlock():
    with (
        lowered_landlock(0),
        pytest.raises(SandboxError, match=r"no landlock either \(Linux 5.13"),
        open_isolated_or_raise("confined"),
    ):
        pass


@needs_namespaces
def test_full_stands_without_landlock_and_mount_setattr():
    """As on Debian 11 and Ubuntu 20.04: the root is made read-only mount by mount."""
    code = "import os\nfor path in (os.path.dirname(os.__file__), '/dev', '/'):\n"
    code += "    try: os.mkdir(f'{path}/x')\n    except OSError as error: print(error.strerror)"
    with lowered_landlock(0), open_isolated("full", libraries=()) as sandbox:
        assert sandbox.tier.startswith("full: ")
        assert "; no landlock; " in sandbox.tier
        with sandbox.session() as session:
            assert session.run(code).stdout == "Read-only file system\n" * 3


def test_a_kernel_without_process_handles_is_refused_in_words():
    missing = "isolation.identity.os.pidfd_open = lambda pid: isolation.os.stat('/no/such')"
    with (
        patched_worker([missing]),
        pytest.raises(SandboxError, match=r"pidfd_open.*Linux 5.3 or later"),
        open_isolated_or_raise("full"),
    ):
        pass
