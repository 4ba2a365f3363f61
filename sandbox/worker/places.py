"""Origin of code: the model's own, a library or the worker; without folders of this machine.

What a model reads must not reveal where Python or this package is installed: a file of a library
is named by its module (``numpy/_core/fromnumeric.py``), the worker's files are never named. The
origin does not follow from a folder's name, since an installation may be anywhere, even below
``/tmp``: the model's own code are the blocks, strings that it executes, and the files of its
private folder.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any

BLOCK_PREFIX = "<block "
STRING = "<string>"
"""File name of code run by eval and exec."""

DRAWING = "<figure>"
"""File name of the worker's call that draws a figure, as named in library warnings."""

_PRIVATE_FOLDER = "/session/tmp"  # name of a session's own folder at every isolation level
_PYTHON = "<python>"
_WORKER = os.path.dirname(os.path.abspath(__file__))
_WORKER_IN_ASCII = _WORKER.encode("ascii", "backslashreplace").decode("ascii")
_OWN_FRAMES = re.compile(
    rf'^  File "{re.escape(_WORKER_IN_ASCII)}/[^"\n]*", line \d+ in .*\n', re.MULTILINE
)
"""The worker's own frames as ``faulthandler`` writes them."""
_MOST_UP = 16  # steps up in a relative path
_SHARED_FOLDERS = {"/", "/usr", "/usr/local"}  # shared with files outside Python


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of Python, its libraries and this worker, by every name, longest first.

    Called first in the zygote, whose sessions inherit the result: code may change ``sys.path``.
    """
    environment = os.path.dirname(os.path.dirname(sys.executable))  # of a virtual environment
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, environment)
    named = [*sys.path, *prefixes, *_folder_of("msgpack"), _WORKER]
    return tuple(_every_name(filter(None, named)))


class Places:
    """The folders of one session.

    Args:
        own_folder: Private folder of the session.
    """

    def __init__(self, own_folder: str) -> None:
        self._folder = own_folder
        self._real = os.path.realpath(own_folder)
        self._foreign = tuple(f"{folder}/" for folder in installed_folders())
        self.longest = max(map(len, (*self._foreign, own_folder)))

    def is_model_code(self, filename: str) -> bool:
        """Whether the model wrote the code with this file name."""
        if filename.startswith(BLOCK_PREFIX) or filename == STRING:
            return True
        if filename.startswith(self._foreign):
            return False
        real = os.path.realpath(filename)
        is_private = real.startswith(f"{self._real}/") and not real.startswith(self._foreign)
        return is_private and os.path.isfile(real)

    def is_worker(self, filename: str) -> bool:
        """Whether it is a file of the worker, which no observation mentions."""
        return filename == DRAWING or filename.startswith(f"{_WORKER}/")

    def without_folders(self, text: str) -> str:
        """Return ``text`` with each file of a library named by its module."""
        if "/" not in text:
            return text
        text = _OWN_FRAMES.sub("", text)
        return _pattern().sub(_name, text).replace(self._folder, _PRIVATE_FOLDER)

    def name_in_tracebacks(self) -> None:
        """Apply these names to tracebacks that code prints itself."""
        summary: Any = traceback.StackSummary
        original = summary.format

        def format(self: Any, **options: Any) -> list[str]:  # noqa: A001, ANN401
            """Return a text for each frame but the worker's."""
            frames = [frame for frame in self if not places.is_worker(frame.filename)]
            texts = original(summary.from_list(frames), **options)
            return [places.without_folders(text) for text in texts]

        places = self
        summary.format = format


@functools.cache
def _pattern() -> re.Pattern[str]:
    names = "|".join(map(re.escape, installed_folders()))
    return re.compile(rf"(?<![\w.-])(?:(?:\.\./){{0,{_MOST_UP}}}\.\.)?(?:{names})(/|(?![\w.-]))")


def _name(match: re.Match[str]) -> str:
    return "" if match[1] else _PYTHON


def _every_name(folders: Iterable[str]) -> list[str]:
    """Return folders as given, resolved, and escaped for UTF-8 and for ASCII."""
    names: set[str] = set()
    for folder in folders:
        for name in (os.path.normpath(folder), os.path.realpath(folder)):
            names |= {name, name.encode("utf-8", "backslashreplace").decode("utf-8")}
            names.add(name.encode("ascii", "backslashreplace").decode("ascii"))
    return sorted(names - _SHARED_FOLDERS, key=lambda name: (-len(name), name))


def _folder_of(package: str) -> list[str]:
    """Return the folder of a package that was loaded from another interpreter's libraries."""
    found = getattr(sys.modules.get(package), "__file__", None)
    return [os.path.dirname(os.path.dirname(found))] if found else []
