"""No copy of CodeDance can be read: with it, code could draw a task again and know its answer."""

import sys
import zipfile
from dataclasses import replace

import pytest
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.worker.hidden import hidden_paths

from .conftest import open_isolated

COPIES = (
    "venv/site-packages/codedance",
    "venv/site-packages/codedance-0.1.0.dist-info",
    "venv/site-packages/other/codedance",
    "venv/site-packages/other/_vendor/codedance",
    "venv/site-packages/CodeDance_0.1.0-py3.11.egg",
    "base/lib/codedance",
    "base/lib/python3.11/codedance",
    "base/lib/python3.11/site-packages/codedance",
    "base/lib/python3.9/dist-packages/codedance",
)
FILES = (
    "venv/site-packages/codedance.zip",
    "venv/site-packages/__editable___codedance_0_1_0_finder.py",
    "venv/site-packages/__pycache__/__editable___codedance_0_1_0_finder.cpython-311.pyc",
    "base/lib/python3.11/site-packages/__editable__.codedance-0.1.0.pth",
)
READ = """
import os
for path in {paths!r}:
    for name in (path, path + "/answers.py"):
        try: print("READ", open(name).read())
        except OSError: pass
    try: print(*["LISTED " + name for name in os.listdir(path)])
    except OSError: pass
"""
IMPORT = """
import os, sys
for path in {paths!r}:
    sys.path.insert(0, os.path.dirname(path))
    sys.path.insert(0, path)
try:
    from codedance import answers
    print("IMPORTED", answers.answer)
except (ImportError, PermissionError): pass
try:
    import answers
    print("IMPORTED", answers.answer)
except (ImportError, PermissionError): pass
"""


@pytest.fixture
def interpreter(tmp_path):
    """An interpreter with copies of the package in many places, two of them by a link."""
    for copy in COPIES:
        folder = tmp_path / copy
        folder.mkdir(parents=True)
        (folder / "answers.py").write_text("answer = 42")
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("answer = 42")
    with zipfile.ZipFile(tmp_path / FILES[0], "w") as zipped:
        zipped.writestr("codedance/answers.py", "answer = 42")
    renamed = tmp_path / "base/lib/renamed"
    renamed.mkdir()
    (renamed / "answers.py").write_text("answer = 42")
    (tmp_path / "base/lib/python3.11/dist-packages").mkdir()
    (tmp_path / "base/lib/python3.11/dist-packages/codedance").symlink_to(renamed)
    (tmp_path / "venv/site-packages/shown.py").write_text("word = 'shown'")
    (tmp_path / "base/lib/python3.11/site-packages/also.py").write_text("word = 'also shown'")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    asked = ask_interpreter(sys.executable)
    paths = (*asked.paths, str(tmp_path / "venv/site-packages"))
    return replace(asked, base_prefix=str(tmp_path / "base"), paths=paths)


@pytest.mark.parametrize("isolation", ["full", "confined"])
def test_no_copy_of_our_package_can_be_read_or_imported(tmp_path, interpreter, isolation):
    links = ("base/lib/renamed", "base/lib/python3.11/dist-packages/codedance")
    copies = [str(tmp_path / name) for name in (*COPIES, *FILES, *links)]
    with open_isolated(isolation, libraries=(), interpreter=interpreter) as sandbox:
        with sandbox.session() as session:
            moved = [path.replace("/tmp/", "/libraries-in-tmp/", 1) for path in copies]
            execution = session.run(READ.format(paths=copies + moved))
            assert execution.error is None
            assert "READ" not in execution.stdout
            if isolation == "full":  # without a root of its own the names can be listed
                assert "LISTED" not in execution.stdout
            execution = session.run(IMPORT.format(paths=copies + moved))
            assert (execution.stdout, execution.error) == ("", None)
        with sandbox.session() as session:
            assert session.run("import shown; shown.word").stdout == "'shown'\n"
            also = f"import sys; sys.path.append({str(tmp_path / 'base/lib/python3.11')!r}"
            assert session.run(f"{also} + '/site-packages')\nimport also").is_ok


def test_an_environment_of_this_name_is_not_hidden_itself(tmp_path):
    site = tmp_path / "lib" / "codedance" / "lib" / "python3.11" / "site-packages"
    (site / "codedance").mkdir(parents=True)
    assert hidden_paths([str(tmp_path / "lib")], [str(site)]) == [str(site / "codedance")]
