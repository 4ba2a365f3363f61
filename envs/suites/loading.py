"""Loading of suites by name.

`load_suite` supports ``nano``, task files (``.jsonl``), files of families (``.py``), the names of
a user's own families, and data sets: folders with a ``data.jsonl`` in the folder that
``CODEDANCE_DATA`` names. A name may select families: ``nano:count,bars``.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .base import SPLITS, Split, Suite, SuiteError
from .filtered import ChosenFamilies
from .generated import GeneratedSuite, families_of, suites_with_families
from .joined import JoinedSuite
from .jsonl import JsonlSuite
from .python_file import ENDING, suite_of_file

DATA_VARIABLE = "CODEDANCE_DATA"
"""Environment variable: the folder that holds the data sets."""

_JSONL = ".jsonl"
_DATA_SETS = ("nlvr_dev", "nuclei_count")


def load_suite(name: str | os.PathLike[str], *, split: Split = "train") -> Suite:
    """Return the suite with a name.

    Args:
        name: Name such as ``nano``, ``my_tasks.jsonl``, ``my_families.py``, ``nuclei_count``, or
            a name from `register_family`; ``nano:count,bars`` for some families (not of a file).
        split: Split, ``train`` or ``test``; a data set has ``test`` only.

    Raises:
        SuiteError: The suite, split or family is unknown, or a file cannot be read as tasks.
    """
    if split not in SPLITS:
        raise SuiteError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    name = os.fspath(name)
    if name.endswith(ENDING):
        name = suite_of_file(Path(name))
    if name == "nano":
        from .nano.suite import NanoSuite

        return _with_own_families(NanoSuite(split), split)
    if name.endswith(_JSONL):
        return JsonlSuite(Path(name), name=name, split=split)
    if name in suites_with_families():
        return GeneratedSuite(name, families_of(name), split=split)
    if (path := _data_set(name)) is not None:
        if split != "test":
            raise SuiteError(f"{name} is a test set; ask for split='test'")
        return JsonlSuite(path, name=name, split=split)
    if ":" in name:
        return _some_families(name, split)
    raise SuiteError(_unknown(name))


def file_of(name: str) -> Path | None:
    """Return the file of a suite's tasks or families; None for any other suite."""
    if name.endswith((ENDING, _JSONL)):
        return Path(name)
    return _data_set(name.partition(":")[0])


def known_suites() -> tuple[str, ...]:
    """Return all names for `load_suite`, including data sets that are not installed."""
    return tuple(dict.fromkeys(("nano", *_DATA_SETS, *suites_with_families())))


def _some_families(name: str, split: Split) -> Suite:
    base, _, families = name.partition(":")
    if base.endswith((ENDING, _JSONL)):
        raise SuiteError(
            f"{name!r}: families can be chosen of a named suite only; leave out what follows the "
            f"colon, and the tasks of other families out of {base}"
        )
    return ChosenFamilies(
        load_suite(base, split=split), [one.strip() for one in families.split(",")]
    )


def _with_own_families(suite: Suite, split: Split) -> Suite:
    """Add the user's families of the suite, each with as many tasks as an embedded one."""
    own = families_of(suite.name)
    if not own:
        return suite
    if taken := [name for name in own if name in suite.families]:
        raise SuiteError(f"{suite.name} has families {taken} of its own: name yours otherwise")
    size = max(1, len(suite) // len(suite.families)) * len(own)
    return JoinedSuite((suite, GeneratedSuite(suite.name, own, split=split, size=size)))


def _data_set(name: str) -> Path | None:
    folder = os.environ.get(DATA_VARIABLE)
    if not folder or name in ("", "..") or Path(name).name != name:
        return None
    path = Path(folder) / name / "data.jsonl"
    return path if path.is_file() else None


def _unknown(name: str) -> str:
    if name in _DATA_SETS:
        return (
            f"the data set {name!r} is not here: set {DATA_VARIABLE} to the folder that holds "
            f"{name}/data.jsonl, or give the path of that file"
        )
    near = difflib.get_close_matches(name, known_suites(), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    known = ", ".join(known_suites())
    return f"unknown suite {name!r}{hint}; there are {known}, and paths that end in .jsonl or .py"
