"""The escape suite on a real kernel: ``python -m kernels 6.1`` in ``tests/``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .download import MissingError, kernel_image, package_name
from .image import root_image
from .log import Log, commit_of, describe
from .machine import Machine, has_kvm
from .table import KERNELS, Kernel

PLACES = ("full:root", "confined:root", "full:nobody", "confined:nobody")
_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the suite and add the results to the log; return 1 if anything was not held."""
    words = _words()
    folder = words.folder / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        results = [_try(KERNELS[version], words, folder) for version in words.kernels]
    except MissingError as missing:
        sys.stdout.write(f"not run: {missing}\n")
        return 2
    return int(not all(results))


def _try(kernel: Kernel, words: argparse.Namespace, folder: Path) -> bool:
    """Run the suite on a kernel and return whether everything was held."""
    boot_image = kernel_image(kernel, folder)
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=folder) as scratch:
        root = Path(scratch) / "root.cpio"
        commit = commit_of(words.checkout)
        root_image(words.checkout, folder, root)
        console = folder / f"console-{kernel.version}.txt"
        machine = Machine(kernel, boot_image, root, console, not has_kvm())
        places = [tuple(place.split(":")) for place in words.places]
        said = []
        try:
            for line in machine.run(places, words.attempts):
                said.append(line)
                sys.stdout.write(describe(line))
                sys.stdout.flush()
        except (KeyboardInterrupt, TimeoutError) as end:  # the log says which places are not done
            sys.stdout.write(f"ended early: {end!r}\n")
    log = Log(kernel, package_name(kernel, folder), commit, said)
    sys.stdout.write(log.text())
    if words.log is not None:
        log.write(words.log, words.label)
    return log.is_held(words.places)


def _words() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "codedance"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="+", choices=KERNELS)
    parser.add_argument("--places", nargs="+", default=PLACES, help="isolation:user")
    parser.add_argument("--attempts", nargs="+", default=(), help="numbers; all by default")
    parser.add_argument("--checkout", type=Path, default=_ROOT, help="another one to test")
    parser.add_argument("--log", type=Path, help="file to which the results are added")
    parser.add_argument("--label", default="", help="name of these results beside others'")
    parser.add_argument("--folder", type=Path, default=cache, help="where downloads are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
