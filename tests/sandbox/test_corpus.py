"""Typical programs of visual reasoners have the same results in the sandbox as in plain Python."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.envs.suites.nano.suite import FAMILIES, NanoSuite
from codedance.sandbox import Limits, Outcome
from codedance.sandbox.types import DEFAULT_LIBRARIES

from .conftest import open_isolated
from .corpus.templates import programs

ROOMY = Limits(wall_seconds=60.0, cpu_seconds=60.0)
_MORE_LIBRARIES = (
    "scipy.ndimage",
    "scipy.spatial",
    "scipy.stats",
    "skimage.measure",
    "skimage.filters",
    "skimage.color",
    "pandas",
    "sympy",
    "networkx",
    "shapely.geometry",
)
_TASKS = 63  # three of each family and difficulty
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def corpus():
    """Every program with its image: the oracle's, and variations over the libraries."""
    suite = NanoSuite("train")
    tasks = [suite[index] for index in range(_TASKS)]
    made = []
    for task in tasks:
        for style, code in FAMILIES[task.family].programs(task.question).items():
            made.append((f"oracle {style} {task.id}", code, task.images[0]))
    for number, (name, code) in enumerate(programs()):
        made.append((name, code, tasks[number % len(tasks)].images[0]))
    return made


def in_plain_python(corpus, folder):
    """Return the results of plain Python by name."""
    records = []
    for number, (name, code, picture) in enumerate(corpus):
        path = folder / f"{number}.png"
        picture.save(path)
        records.append({"name": name, "code": code, "picture": str(path)})
    (folder / "in.json").write_text(json.dumps(records))
    script = Path(__file__).parent / "corpus" / "plain.py"
    command = [sys.executable, "-W", "ignore", str(script)]
    command += [str(folder / "in.json"), str(folder / "out.json")]
    home = {"HOME": str(folder)} | {
        k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ
    }
    subprocess.run(command, env=_ENVIRONMENT | home, check=True, timeout=280)
    return json.loads((folder / "out.json").read_text())


def given(session, code):
    """Return the results of the sandbox in the same form."""
    execution = session.run(code)
    assert execution.outcome in (Outcome.OK, Outcome.ERROR), execution
    digests = []
    for image in execution.images:
        head = f"{image.width} {image.height} ".encode()
        digests.append(hashlib.sha256(head + image.tobytes()).hexdigest())
    return {"stdout": execution.stdout, "error": execution.error, "images": digests}


def test_the_corpus_is_large(corpus):
    assert len(corpus) >= 300
    assert len({code for _, code, _ in corpus}) >= 250
    assert len({name for name, _, _ in corpus}) == len(corpus)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["full", "confined"])
def test_programs_have_the_same_results_as_in_plain_python(corpus, tmp_path, isolation):
    different = []
    expected = in_plain_python(corpus, tmp_path)
    libraries = (*DEFAULT_LIBRARIES, *_MORE_LIBRARIES)
    with open_isolated(isolation, ROOMY, libraries=libraries) as sandbox:
        for name, code, picture in corpus:
            if isolation == "confined" and "ThreadPoolExecutor" in code:
                continue  # no threads at this level, as documented
            with sandbox.session([picture]) as session:
                seen = given(session, code)
            different += [
                f"{name}, {part}: expected {expected[name][part]!r}, found {value!r}"
                for part, value in seen.items()
                if value != expected[name][part]
            ]
    assert not different, "\n".join(different)
