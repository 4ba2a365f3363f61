"""Output does not depend on the location of the package or Python, or on the environment."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import codedance.sandbox
import pytest

from .conftest import has_namespaces

BLOCKS = {
    "an error": "1 / 0",
    "a syntax error": "x = (",
    "a warning of numpy": "import numpy as np\nnp.mean(np.array([]))",
    "a warning at a line of ours": "import numpy as np\nnp.array([1.0]) / 0",
    "an error in numpy": "import numpy as np\ndef f(a): return a.reshape(7)\nf(np.zeros(3))",
    "an error in Pillow": "from PIL import Image\ndef f(): Image.open('nothing.png')\nf()",
    "an error in the standard library": "import json\ndef f(): json.loads('{')\nf()",
    "a name that a library lacks": "from numpy import nonsense",
    "a module that is not there": "import no_such_module",
    "a missing file": "open('nothing')",
    "a traceback on standard error": "import traceback, json\ntry: json.loads('{')\n"
    "except ValueError: traceback.print_exc()",
    "a traceback on standard output": "import traceback, json\ntry: json.loads('{')\n"
    "except ValueError: print(traceback.format_exc())",
    "a logged traceback": "import logging, json\ntry: json.loads('{')\n"
    "except ValueError: logging.exception('no')",
    "an error in a thread's hook": "import sys, json\ntry: json.loads('{')\n"
    "except ValueError: sys.excepthook(*sys.exc_info())",
    "the stack": "import traceback\ntraceback.print_stack()",
    "a warning beyond the stack": "import warnings\nwarnings.warn('far', stacklevel=9)",
    "a figure's warning": "import matplotlib.pyplot as plt\nplt.title('数')\n_ = plt.plot([1])",
    "settings of matplotlib": "import matplotlib\nprint(matplotlib.rcParams['lines.linewidth'])",
    "sets": "print({'a', 'b', 'c', 'd'}, hash('e'))",
    "the zone": "import time\nprint(time.tzname, time.localtime(0)[:5])",
    "the language": "import os, locale\nprint(os.strerror(2), locale.getpreferredencoding(False))",
    "encodings": "open('f', 'w').write('é')\nprint(open('f', 'rb').read())",
    "widths": "import numpy as np, shutil\nprint(shutil.get_terminal_size(), np.arange(60))",
    "a table": "import pandas as pd\n"
    "print(pd.DataFrame({f'column {n}': [n] * 3 for n in range(20)}))",
    "the user": "import os\nprint(os.environ.get('USER'), os.environ.get('MPLCONFIGDIR'))",
    "threads": "import os\nprint(os.environ.get('OMP_NUM_THREADS'))",
    "filters of warnings": "import warnings\nprint(len(warnings.filters))\n"
    "warnings.warn('old', DeprecationWarning)",
    "a module of the model's own": "import os, sys\nsys.path.append(os.getcwd())\n"
    "open('mine.py', 'w').write('def f():\\n    return 1 / 0\\n')\nimport mine\nmine.f()",
    "a library's file, printed": "import numpy as np\nprint(np.__file__, np)",
    "an error, printed": "try: from numpy import nonsense\nexcept ImportError as e: print(e)",
    "the stack, printed": "import traceback\nprint(traceback.extract_stack()[-1])",
    "paths, one character at a time": "import numpy, sys\nfor c in numpy.__file__:\n"
    "    sys.stderr.write(c), sys.stderr.flush()",
    "a path that arrives in two pieces": "import numpy, sys\n"
    "_ = sys.stderr.write('y' * 4076 + ' ' + numpy.__file__ + ' end\\n')",
    "a figure's warning, logged": "import logging\nlogging.basicConfig()\n"
    "logging.captureWarnings(True)\nimport matplotlib.pyplot as plt\nplt.title('数')\n"
    "_ = plt.plot([1])",
    "frames of every thread": "import faulthandler\nfaulthandler.dump_traceback(all_threads=False)",
    "a file that is run": "import runpy\nopen('mine.py', 'w').write('1 / 0')\n"
    "runpy.run_path('mine.py')",
}
SCRIPT = """
import json, sys
place, python, isolation, blocks = sys.argv[1:]
sys.path.insert(0, place)
import codedance.sandbox
assert codedance.sandbox.__file__.startswith(place), codedance.sandbox.__file__
from codedance.sandbox import Limits
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.host.zygote import ZygotePlan
libraries = ("numpy", "PIL", "matplotlib.pyplot")
plan = ZygotePlan(ask_interpreter(python), libraries, Limits(), isolation)
found = []
with LocalSandbox(plan, floor="none") as sandbox:
    for block in json.loads(blocks):
        with sandbox.session() as session:
            one = session.run(block)
            found.append([one.outcome, one.stdout, one.stderr, one.error, one.digest])
print(json.dumps(found))
"""
ROOM = Path(codedance.sandbox.__file__).parent
PYTHON = Path(sys.executable).name
ISOLATION = "full" if has_namespaces() else "confined"
"""The strongest isolation level of this machine; a plain container has no user namespaces."""
ANOTHER_USERS = {
    "LC_ALL": "POSIX",
    "LANG": "de_DE.UTF-8",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TZ": "America/New_York",
    "COLUMNS": "40",
    "PYTHONHASHSEED": "7",
    "PYTHONWARNINGS": "always",
    "OMP_NUM_THREADS": "3",
    "USER": "jürgen",
}


@pytest.fixture(scope="module")
def copy():
    """A copy of the room under another path, readable by every user, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="Jürgen Müller ") as folder:
        Path(folder).chmod(0o755)
        yield copied(Path(folder) / "a clone")


def copied(place):
    """Copy the room to a folder, with a home and a link to this virtual environment beside it."""
    room = place / "codedance" / "sandbox"
    shutil.copytree(ROOM, room, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "codedance" / "__init__.py").touch()
    home = place / "home"
    for folder in (home / ".config" / "matplotlib", home / "given"):
        folder.mkdir(parents=True)
        (folder / "matplotlibrc").write_text("lines.linewidth: 17\n")
    (place / "venv").symlink_to(sys.prefix)
    return place


@pytest.fixture(scope="module")
def here():
    """Output of the installed room."""
    code = SCRIPT.replace("sys.path.insert(0, place)\n", "")
    return answer([sys.executable, "-c", code, str(ROOM), sys.executable, ISOLATION], os.environ)


def answer(command, environment, cwd="/"):
    blocks = json.dumps(list(BLOCKS.values()))
    done = subprocess.run(
        [*command, blocks], env=environment, cwd=cwd, stdout=subprocess.PIPE, timeout=250
    )
    assert done.returncode == 0
    return dict(zip(BLOCKS, json.loads(done.stdout.splitlines()[-1]), strict=True))


def elsewhere(copy, *, python=sys.executable, isolation=ISOLATION, before=(), cwd="/"):
    home = {"HOME": str(copy / "home"), "MPLCONFIGDIR": str(copy / "home" / "given")}
    environment = os.environ | ANOTHER_USERS | home
    command = [sys.executable, "-c", SCRIPT, str(copy), str(python), isolation]
    return answer([*before, *command], environment, cwd)


def test_output_names_no_folder_of_this_machine(here):
    for name, (_, stdout, stderr, error, _) in here.items():
        text = f"{stdout} {stderr} {error}"
        own = ("showing.py", "block.py", "start.py")
        for folder in (sys.prefix, sys.base_prefix, str(ROOM), "site-packages", *own):
            assert folder not in text, name
    assert here["an error"][2] == here["a syntax error"][2] == ""
    assert here["a figure's warning"][2].startswith("UserWarning: Glyph 25968 ")
    assert here["a warning beyond the stack"][2] == "UserWarning: far\n"
    assert here["a warning of numpy"][2].startswith("numpy/_core/fromnumeric.py:")
    assert here["a library's file, printed"][1].startswith("numpy/__init__.py <module 'numpy' ")
    assert here["paths, one character at a time"][2] == "numpy/__init__.py"
    assert here["a path that arrives in two pieces"][2].endswith("y numpy/__init__.py end\n")
    assert here["a file that is run"][2].endswith("  mine.py, line 1: 1 / 0\n")
    assert here["a name that a library lacks"][3] == (
        "ImportError: cannot import name 'nonsense' from 'numpy' (numpy/__init__.py), line 1"
    )


def test_a_copy_under_another_path_in_another_environment_has_the_same_output(here, copy):
    assert elsewhere(copy) == here


@pytest.mark.slow
def test_another_user_has_the_same_output(here, copy):
    if os.geteuid() != 0:
        pytest.skip("already a user without rights")
    nobody = [sys.executable, "-m", "sandbox.escapes", "as-nobody"]
    found = elsewhere(copy, before=nobody, cwd=Path(__file__).parents[1])
    assert found == here


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["confined", "none"])
def test_another_isolation_level_has_the_same_output(here, copy, isolation):
    assert elsewhere(copy, isolation=isolation) == here


@pytest.mark.slow
def test_an_environment_under_another_path_has_the_same_output(here, copy):
    assert elsewhere(copy, python=copy / "venv" / "bin" / PYTHON) == here


def test_a_snapshot_continues_under_another_path(copy):
    """Also if code printed the path of a library's file, which differs there."""
    from codedance.sandbox import open_sandbox

    prints = "import numpy as np, sys\nprint(np.__file__, sys.prefix, np.mean(np.array([])))\nv = 7"
    python = str(copy / "venv" / "bin" / PYTHON)
    with open_sandbox("local", libraries=()) as one, one.session() as session:
        printed = session.run(prints).stdout
        state = session.snapshot()
    with (
        open_sandbox("local", python=python, libraries=()) as other,
        other.restore(state) as session,
    ):
        assert session.run("print(v)").stdout == "7\n"
        assert session.run("print(np.__file__)").stdout == "numpy/__init__.py\n"
        assert printed.startswith("numpy/__init__.py ")
