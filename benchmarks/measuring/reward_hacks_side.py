"""What each scripted reward hack gains under each preset, in one version of the rewards, as JSON.

``python -m benchmarks.measuring.reward_hacks_side FILE ROOT`` measures the version whose rooms lie
in ``ROOT``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import codedance.envs
from codedance.policies.analysis.attack_reward import AttackStage
from codedance.sandbox import open_sandbox

PRESETS = ("bat", "bat_sequence", "tool_bonus", "bat_paper")


def measure() -> dict[str, list[dict[str, Any]]]:
    """Return by preset the reward hacks, in order, as ``codedance attack-reward`` judges them."""
    with open_sandbox("local") as sandbox:
        stage = AttackStage(sandbox)
    return {
        preset: [
            {
                "name": result.hack.name,
                "against": result.hack.against,
                "is_limit": result.hack.is_limit,
                "gain": result.gain,
                "pays": result.pays,
            }
            for result in stage.judge(preset)
        ]
        for preset in PRESETS
    }


def main(file: str, root: str) -> None:
    """Measure, and write the figures.

    Raises:
        RuntimeError: Another version than that of ``root`` was imported.
    """
    imported = Path(codedance.envs.__file__).resolve()
    if not imported.is_relative_to(Path(root).resolve()):
        raise RuntimeError(f"expected the rewards of {root}, got {imported}")
    Path(file).write_text(json.dumps(measure()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
