"""Seeding of all random sources, so that a replay draws the same numbers."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any


def seed_random_sources(seed: int) -> None:
    """Seed every source of randomness in this process, the operating system's included.

    ``random``, ``numpy.random`` and OpenCV start from ``seed``; generators created without a seed,
    ``os.urandom``, ``secrets``, ``uuid`` and the names of temporary files are derived from it.
    """
    entropy = random.Random(seed)
    _replace_system_entropy(entropy.randbytes)
    _replace_missing_seeds(entropy)
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
        bit_generator: Any = sys.modules.get("numpy.random.bit_generator")
        if bit_generator is not None and hasattr(bit_generator, "randbits"):
            bit_generator.randbits = entropy.getrandbits  # an unseeded default_rng()
    cv2: Any = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setRNGSeed(seed % 2**31)


def _replace_system_entropy(draw: Callable[[int], bytes]) -> None:
    def urandom(size: int) -> bytes:
        """Return ``size`` bytes that follow from the session's seed."""
        return draw(size)

    os.urandom = urandom
    random._urandom = urandom  # type: ignore[attr-defined]  # used by SystemRandom


def _replace_missing_seeds(entropy: random.Random) -> None:
    """Derive ``random.Random()`` and ``random.seed()`` from the session's seed."""
    original = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:  # noqa: ANN401
        original(self, entropy.getrandbits(256) if a is None else a, version)

    random.Random.seed = seed
    random.seed = random._inst.seed  # type: ignore[attr-defined]  # bound before the change
