"""Where code comes from: the model's own, a library, the worker; with no folder of this machine.

What a model reads must not tell where Python or this package is installed: a file of a library is
named by its module (``numpy/_core/fromnumeric.py``), the worker's files not at all. Whose code it
is does not follow from a folder's name either, since an installation may lie anywhere, below
``/tmp`` too: the model's own are the blocks, strings that it executes, and the files of its
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
"""What eval and exec call the code that they are given."""

DRAWING = "<figure>"
"""What the worker's own call is named that draws a figure: what a library warns of names it."""

_PRIVATE_FOLDER = "/session/tmp"  # what every tier calls a session's own folder
_PYTHON = "<python>"
_WORKER = os.path.dirname(os.path.abspath(__file__))
_WORKER_IN_ASCII = _WORKER.encode("ascii", "backslashreplace").decode("ascii")
_OWN_FRAMES = re.compile(
    rf'^  File "{re.escape(_WORKER_IN_ASCII)}/[^"\n]*", line \d+ in .*\n', re.MULTILINE
)
"""The worker's own frames as ``faulthandler`` writes them."""
_MOST_UP = 16  # steps up in a relative path
_SHARED_FOLDERS = {"/", "/usr", "/usr/local"}  # much lies there that is no part of Python


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return where Python, its libraries and this worker lie, by every name, the longest first.

    Asked first in the zygote, whose sessions inherit the answer: code may change ``sys.path``.
    """
    environment = os.path.dirname(os.path.dirname(sys.executable))  # a virtual one's own folder
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, environment)
    named = [*sys.path, *prefixes, *_folder_of("msgpack"), _WORKER]
    return tuple(_every_name(filter(None, named)))


class Places:
    """The folders of one session.

    Args:
        own_folder: The session's private one.
    """

    def __init__(self, own_folder: str) -> None:
        self._folder = own_folder
        self._real = os.path.realpath(own_folder)
        self._foreign = tuple(f"{folder}/" for folder in installed_folders())
        self.longest = max(map(len, (*self._foreign, own_folder)))

    def completion_mask(self, filename: str) -> bool:
        """Whether the model wrote the code that is called so."""
        if filename.startswith(BLOCK_PREFIX) or filename == STRING:
            return True
        if filename.startswith(self._foreign):
            return False
        real = os.path.realpath(filename)
        is_private = real.startswith(f"{self._real}/") and not real.startswith(self._foreign)
        return is_private and os.path.isfile(real)

    def is_worker(self, filename: str) -> bool:
        """Whether it is a file of the worker's, which no observation mentions."""
        return filename == DRAWING or filename.startswith(f"{_WORKER}/")

    def without_folders(self, text: str) -> str:
        """Return ``text`` with each file of a library named by its module."""
        if "/" not in text:
            return text
        text = _OWN_FRAMES.sub("", text)
        return _pattern().sub(_name, text).replace(self._folder, _PRIVATE_FOLDER)

    def name_in_tracebacks(self) -> None:
        """Let tracebacks that code prints itself name files so, wherever it prints them."""
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
    """Return folders as given, resolved, and as text shows what is no UTF-8, or no ASCII."""
    names: set[str] = set()
    for folder in folders:
        for name in (os.path.normpath(folder), os.path.realpath(folder)):
            names |= {name, name.encode("utf-8", "backslashreplace").decode("utf-8")}
            names.add(name.encode("ascii", "backslashreplace").decode("ascii"))
    return sorted(names - _SHARED_FOLDERS, key=lambda name: (-len(name), name))


def _folder_of(package: str) -> list[str]:
    """Return where a package lies that came from another interpreter's libraries."""
    found = getattr(sys.modules.get(package), "__file__", None)
    return [os.path.dirname(os.path.dirname(found))] if found else []
