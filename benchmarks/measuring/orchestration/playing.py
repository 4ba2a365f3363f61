"""Shared parts of the programs that drive a contestant: options, images, the clock.

Imported in other packages' environments, too: needs nothing but pillow and numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from .recording import SIDE, TURNS

WARM_UP = 4
"""Episodes before the clock starts; they are others than those that are measured."""
_FIRST_WARM_UP = 90_000


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a program.

    Attributes:
        url: Address of the fake engine.
        episodes: Episodes, all at the same time.
        client: Client of the contestant, where it has several.
        tool: ``real`` or ``remote``, for ours.
        evidence: Whether ours records evidence.
    """

    url: str
    episodes: int
    client: str
    tool: str
    evidence: bool


def read_options(description: str | None) -> Options:
    """Read the options from the command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--client", default="vllm")
    parser.add_argument("--tool", default="real", choices=("real", "remote"))
    parser.add_argument("--evidence", action="store_true")
    return Options(**vars(parser.parse_args()))


@cache
def picture(number: int) -> Image.Image:
    """Return an image of smooth colours, different for each number."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    waves = [np.sin((across * (2 + n) + down * (1 + number % 7)) / 60.0 + number) for n in range(3)]
    return Image.fromarray((127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8))


def report(play: Callable[[Sequence[int]], None], options: Options) -> None:
    """Play some episodes to warm up, then all; print the seconds as a line of JSON."""
    play(range(_FIRST_WARM_UP, _FIRST_WARM_UP + min(WARM_UP, options.episodes)))
    for number in range(max(options.episodes, TURNS)):
        picture(number)  # made before the clock starts
    used = _processor_seconds()
    begun = time.perf_counter()
    play(range(options.episodes))
    seconds = time.perf_counter() - begun
    found = {"seconds": seconds, "processor_seconds": _processor_seconds() - used}
    sys.stdout.write(json.dumps(found | {"load": os.getloadavg()[0]}) + "\n")


def _processor_seconds() -> float:
    return sum(
        one.ru_utime + one.ru_stime
        for one in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
