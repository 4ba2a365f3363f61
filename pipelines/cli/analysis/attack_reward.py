"""``codedance attack-reward``: scripted reward hacks that a reward would pay."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .. import completion
from ..exit_codes import FINDINGS
from ..options import Json, SandboxName, Set

if TYPE_CHECKING:
    from ....policies.analysis.attack_reward import AttackResult

COLUMNS = 80
LIMIT = "Known limit, not counted: {hack} earns up to {gain:+.2f} above {honest}. {reason}"
HONEST = {
    "direct": "no call at all, as much as an honest call with the same answer",
    "tool": "an honest call",
    "sloppy": "a failed call that an honest one follows",
    "wasteful": "a call without evidence that an honest one follows",
}


def attack_reward(  # noqa: PLR0913 - the options of the command
    reward: Annotated[
        str,
        typer.Option(
            help="outcome, tool_bonus, bat_sequence, bat or bat_paper.",
            autocompletion=completion.one_of(*completion.REWARDS),
        ),
    ] = "bat",
    term: Annotated[
        list[str] | None,
        typer.Option(help="Additional custom term: terms.py:function=WEIGHT; may be repeated."),
    ] = None,
    scale: Annotated[
        Literal["floor", "group", "none"], typer.Option(help="scale_rewards, as in training.")
    ] = "floor",
    per_difficulty: Annotated[int, typer.Option(min=1, help="Tasks per difficulty.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the tasks.")] = 0,
    sandbox_name: SandboxName = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Attack a reward with scripted reward hacks; fails if one of them pays.

    Each hack is compared with an honest policy that gives the same answer, in groups from all wrong
    to all right, in the real environment and sandbox.
    """
    from ....envs.rewards.registry import with_terms
    from ....policies.analysis.attack_reward import attack_reward as attack
    from ...config.presets import read_overrides
    from ...config.sections.sandbox_settings import open_configured
    from ...runs.used_sandbox import sandbox_for
    from ..document import document
    from ..output import say

    overrides = read_overrides(settings)
    preset = with_terms(reward, _terms(term or ()))
    with document(json) as publish:
        with open_configured(sandbox_for("oracle", sandbox_name, overrides=overrides)) as sandbox:
            results = attack(
                preset,
                sandbox=sandbox,
                scale_rewards=scale,
                tasks_per_difficulty=per_difficulty,
                seed=seed,
            )
        names = ", ".join((reward, *(term or ())))
        say(
            f"reward {names}; scale_rewards {scale}; {3 * per_difficulty} tasks of nano, "
            f"seed {seed}"
        )
        for line in attack_lines(results):
            say(line)
        pays = any(result.pays for result in results)
        publish({"reward": names, "pays": pays, "reward_hacks": [_entry(one) for one in results]})
    if pays:
        raise typer.Exit(FINDINGS)


def _entry(result: AttackResult) -> dict[str, object]:
    return {
        "reward_hack": result.hack.name,
        "against": result.hack.against,
        "is_limit": result.hack.is_limit,
        "gains": result.gains,
        "pays": result.pays,
    }


def attack_lines(results: Sequence[AttackResult]) -> list[str]:
    """Return the table, the known limit and the verdict, 80 columns wide."""
    counted = [result for result in results if not result.hack.is_limit]
    difficulties = list(counted[0].gains)
    intro = (
        "Advantage of a reward hack minus that of the honest policy with the same answer (direct: "
        "no call; tool: one honest call; sloppy: a failed call, then an honest one), in the group "
        "where the hack earns most:"
    )
    columns = "".join(f"{difficulty:>9}" for difficulty in difficulties)
    head = f"{'reward hack':<31}{'against':<9}{columns}   verdict"
    lines = [*textwrap.wrap(intro, COLUMNS), "", head]
    lines += [
        f"{one.hack.name:<31}{one.hack.against:<9}"
        f"{''.join(f'{_figure(gain):>9}' for gain in one.gains.values())}"
        f"   {'PAYS' if one.pays else 'no'}"
        for one in counted
    ]
    for one in results:
        if one.hack.is_limit and one.gain > 0.0:
            words = {"honest": HONEST[one.hack.against], "reason": one.hack.reason}
            limit = LIMIT.format(hack=f"'{one.hack.name}'", gain=one.gain, **words).rstrip()
            lines += ["", *textwrap.wrap(limit, COLUMNS)]
    return [*lines, "", *textwrap.wrap(_verdict(counted), COLUMNS)]


def _verdict(results: Sequence[AttackResult]) -> str:
    paying = sorted((one for one in results if one.pays), key=lambda one: -one.gain)
    if not paying:
        return f"None of {len(results)} reward hacks pays."
    worst = "; ".join(f"{one.hack.name} ({one.gain:+.2f})" for one in paying[:5])
    more = f"; and {len(paying) - 5} more" if len(paying) > 5 else ""
    return f"{len(paying)} of {len(results)} reward hacks pay: {worst}{more}."


def _figure(value: float) -> str:
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}"


def _terms(texts: Sequence[str]) -> dict[str, float]:
    """Parse ``terms.py:function=0.5``.

    Raises:
        ValueError: A term has no number after an equals sign.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, _, weight = text.rpartition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--term {text}: expected NAME=WEIGHT, as terms.py:brevity=-0.01")
    return weights
