"""Opening by name, and the errors for invalid arguments."""

import subprocess
import sys

import pytest
from codedance.sandbox import Limits, SandboxError, open_sandbox
from codedance.sandbox.types import SandboxUnavailableError
from PIL import Image


@pytest.mark.parametrize("backend", ["ray", "Local", ""])
def test_an_unknown_backend_is_rejected_with_the_existing_ones(backend):
    with pytest.raises(ValueError, match="there are 'local', 'docker', 'unsafe-subprocess'"):
        open_sandbox(backend)


def test_an_unknown_minimum_level_is_rejected():
    with pytest.raises(ValueError, match="no floor 'roof'"):
        open_sandbox("local", floor="roof")


def test_more_than_one_process_is_rejected():
    with pytest.raises(ValueError, match=r"Limits\.processes=2"):
        open_sandbox("local", limits=Limits(processes=2))


def test_a_missing_library_is_named():
    with pytest.raises(SandboxError, match="No module named 'no_such_library'"):
        open_sandbox("local", libraries=("no_such_library",))


def test_a_missing_interpreter_is_named():
    with pytest.raises(SandboxUnavailableError, match="/no/such/python"):
        open_sandbox("local", python="/no/such/python")


def test_the_error_on_another_platform_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailableError, match="sandbox='docker'"):
        open_sandbox("local")


def test_the_isolation_level_is_described(full, confined, unsafe):
    assert full.tier.startswith("full: user, pid, mount, net, ipc, uts and cgroup namespaces")
    assert confined.tier.startswith("confined: seccomp")
    assert unsafe.tier == "none: no isolation: the code can do whatever this user can"


def test_too_many_images_are_rejected(full):
    with pytest.raises(ValueError, match="at most 64 pictures, got 65"):
        full.session([Image.new("RGB", (1, 1))] * 65)


def test_the_minimum_level_is_enforced(unsafe):
    plan = unsafe._plan
    with pytest.raises(SandboxUnavailableError, match="below the floor 'confined'"):
        type(unsafe)(plan, floor="confined")


def test_another_interpreter_runs_the_worker():
    """The base interpreter of this virtual environment, without the libraries."""
    base = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print(sys.prefix.encode().hex())"  # as text its folder would be hidden
    known = subprocess.run([base, "-c", code], capture_output=True)
    with open_sandbox("local", python=base, libraries=()) as sandbox, sandbox.session() as session:
        assert session.run(code).stdout == known.stdout.decode()


def test_a_custom_virtual_environment_runs_the_worker(tmp_path):
    """With the libraries installed there, and without the trainer's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "own"], check=True)
    (site,) = (tmp_path / "own" / "lib").glob("python*/site-packages")
    (site / "theirs.py").write_text("word = 'installed here'")
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)  # like a user's folders, unlike pytest's
    python = str(tmp_path / "own" / "bin" / "python")
    with open_sandbox("local", python=python) as sandbox, sandbox.session() as session:
        assert session.run("import theirs; print(theirs.word)").stdout == "installed here\n"
        assert session.run("import numpy").error.startswith("ModuleNotFoundError")


def test_importing_the_room_imports_nothing_heavy():
    code = "import sys, codedance.sandbox; print([m for m in ('numpy', 'torch', 'cv2', 'msgpack')"
    code += " if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "[]\n"
