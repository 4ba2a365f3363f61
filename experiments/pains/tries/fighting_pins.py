"""14. Dependency pins fight.

Reported: Pixel-Reasoner #19, Long-RL #16, SimpleVLA-RL #13; TRL's async page advises `--no-deps`.
Try: what a package requires (without extras), held against what the environments of the other
trainers have installed. How many requirements would replace something there?
"""

import json
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires

from ..verdict import judge

LIST = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({one.metadata['Name'].lower().replace('_', '-'): one.version "
    "for one in distributions() if one.metadata['Name']}))"
)


def installed():
    """Return the versions in each other environment, by contestant and package."""
    pythons = json.loads(os.environ["PAINS_PYTHONS"])
    return {
        name: json.loads(subprocess.run([path, "-c", LIST], capture_output=True, text=True).stdout)
        for name, path in pythons.items()
    }


def result(package, requirements=None):
    """Return the verdict on a package's requirements."""
    from packaging.requirements import Requirement

    wanted = [Requirement(one) for one in requirements or requires(package) or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    clashes, missing = [], {}
    for contestant, versions in installed().items():
        if contestant in ("ours", os.environ["PAINS_CONTESTANT"]):
            continue
        names = {one: re.sub(r"[_.]", "-", one.name.lower()) for one in wanted}
        missing[contestant] = sum(name not in versions for name in names.values())
        clashes += [
            f"{one} with {names[one]} {versions[names[one]]} of {contestant}"
            for one in wanted
            if names[one] in versions and versions[names[one]] not in one.specifier
        ]
    more = ", ".join(f"{count} to {name}" for name, count in missing.items())
    said = f"{len(wanted)} requirements without extras, {len(clashes)} clashes"
    said += f" ({'; '.join(clashes[:4])})" if clashes else ""
    return judge(not clashes, f"{said}; adds {more}")


def ours():
    import tomllib
    from pathlib import Path

    try:
        return result("codedance")
    except PackageNotFoundError:
        text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
        return result("codedance", tomllib.loads(text)["project"]["dependencies"])


def trl():
    return result("trl")


def verl():
    return result("verl")


def verifiers():
    return result("verifiers")
