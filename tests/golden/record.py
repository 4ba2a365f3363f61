"""Record the digests: ``cd tests && python -m golden.record`` (``--print``: write nothing).

Only a named fault or a named feature may change one: describe the change and its reason in
``CHANGES.md``, under the overall digest that this command prints.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from .short_training import KERNELS

DIGESTS = Path(__file__).with_name("digests.json")
CHANGES = Path(__file__).with_name("CHANGES.md")
TESTS = Path(__file__).resolve().parent.parent


def episodes(tasks: int = 100) -> dict[str, dict[str, str]]:
    """Return the digests of the first tasks, half of them of each split, two episodes each."""
    from played_tasks import digests

    return digests(tasks)[0]


def weights() -> dict[str, str]:
    """Return the digests of the weights after a short SFT and a short GRPO."""
    command = (sys.executable, "-m", "golden.short_training")
    environment = os.environ | KERNELS
    done = subprocess.run(
        command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def declared() -> dict[str, object]:
    """Return the digests of the schemas, and the public names."""
    from .declared import public_names, schemas

    return {"schemas": schemas(), "public names": public_names()}


def recorded() -> dict[str, object]:
    """Return the committed digests."""
    return json.loads(DIGESTS.read_text(encoding="utf-8"))


def whole_digest(text: str) -> str:
    """Return the digest of a state of ``digests.json``; `CHANGES` explains each state."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Write ``digests.json``, and print its digest; with ``--print``, print the digests alone."""
    found = {"episodes": episodes(), "weights": weights(), **declared()}
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if "--print" in sys.argv:
        sys.stdout.write(text)
        return
    DIGESTS.write_text(text, encoding="utf-8")
    sys.stdout.write(whole_digest(text) + "\n")


if __name__ == "__main__":
    main()
