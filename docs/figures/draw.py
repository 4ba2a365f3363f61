"""Figures of the reward's explanation, drawn with the functions that training calls.

Run: python docs/figures/draw.py [FOLDER]. Every point is a value of codedance.envs.rewards or of
codedance.policies.training.grpo.advantages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from codedance.envs.rewards import difficulty_factor, turn_returns
from codedance.envs.rewards.terms import score_trajectory
from codedance.envs.types import Action, Ending, Trajectory, Turn
from codedance.policies import group_advantages
from codedance.sandbox import Execution, Outcome

mpl.use("svg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent
BLUE, ORANGE, GREY = "#1f6feb", "#d9822b", "#8a94a3"
STYLE = {
    "svg.hashsalt": "codedance",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e1da",
    "figure.figsize": (6.4, 3.4),
    "legend.frameon": False,
}
WIDE = {  # where both are equal, the published form shows as a broad line under ours
    "bat_paper": {"color": ORANGE, "linewidth": 5, "alpha": 0.4},
    "bat": {"color": BLUE, "linewidth": 1.5, "marker": "."},
}
LONGEST = 6
"""Number of calls of the longest trajectory."""


def episode(*, is_right, succeeded):
    """Return a trajectory with a call per entry: True ran with evidence, False failed."""
    turns = tuple(
        Turn(
            text="",
            action=Action("code", ""),
            execution=Execution(Outcome.OK, stdout=str(number))
            if went_well
            else Execution(Outcome.ERROR, error="NameError: x, line 1"),
            has_evidence=went_well,
        )
        for number, went_well in enumerate(succeeded)
    )
    return Trajectory("t", "p", 0, (), turns, Ending.ANSWERED, float(is_right), answer="1")


def sequence_term(reward, accuracy, *, is_right, succeeded):
    """Return the tool_sequence term of such a trajectory in a group with this accuracy."""
    one = episode(is_right=is_right, succeeded=succeeded)
    return score_trajectory(one, group_accuracy=accuracy, reward=reward)["tool_sequence"]


def difficulty():
    """Difficulty factor over the group's accuracy."""
    accuracies = np.linspace(0, 1, 101)
    values = [difficulty_factor(float(mu)) for mu in accuracies]
    figure, axes = plt.subplots()
    axes.plot(accuracies, values, color=BLUE)
    axes.axhline(0, color=GREY, linewidth=1)
    root = float(np.interp(0.0, values[::-1], accuracies[::-1]))
    axes.plot([root], [0], "o", color=ORANGE)
    axes.annotate(f"μ = {root:.3f}", (root, 0), xytext=(root + 0.03, 0.08))
    axes.set(xlabel="accuracy of the group, μ", ylabel="d(μ)", title="Difficulty factor")
    return figure


def calls():
    """Value of each further call on hard, medium and easy tasks: ours and the published form."""
    figure, panels = plt.subplots(1, 3, sharey=True, figsize=(8.6, 3.2), layout="constrained")
    counts = range(LONGEST + 1)
    for axes, mu in zip(panels, (0.25, 0.5, 0.9), strict=True):
        for reward, line in WIDE.items():
            for is_right, dashes in ((True, "-"), (False, "--")):
                values = [
                    sequence_term(reward, mu, is_right=is_right, succeeded=[True] * count)
                    for count in counts
                ]
                label = f"{reward}, {'right' if is_right else 'wrong'}"
                axes.plot(counts, values, dashes, label=label, **line)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set(title=f"μ = {mu}", xlabel="calls, all with evidence")
    panels[0].set_ylabel("tool_sequence")
    panels[0].legend(fontsize="small", loc="lower left")
    return figure


def failing():
    """Value of failed calls on an easy task."""
    figure, axes = plt.subplots()
    failures = range(LONGEST + 1)
    for reward, colour in (("bat", BLUE), ("bat_paper", ORANGE)):
        values = [
            sequence_term(
                reward, 0.9, is_right=True, succeeded=[False] * n + [True] * (LONGEST - n)
            )
            for n in failures
        ]
        axes.plot(failures, values, color=colour, label=reward, marker=".")
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set(
        xlabel=f"failed ones of {LONGEST} calls",
        ylabel="tool_sequence, answer right",
        title="An easy task (μ = 0.9): does failing make calls cheaper?",
    )
    axes.legend()
    return figure


def turns():
    """Return of each turn when some of them fail."""
    patterns = {
        "only the first fails": [True, False, False, False],
        "the last two fail": [False, False, True, True],
        "all fail": [True] * 4,
    }
    figure, axes = plt.subplots()
    for number, (label, failed) in enumerate(patterns.items()):
        places = np.arange(len(failed)) + 0.25 * (number - 1)
        colour = (BLUE, ORANGE, GREY)[number]
        axes.bar(places, turn_returns(failed), width=0.22, color=colour, label=label)
    axes.set_axisbelow(True)
    axes.set(
        xlabel="tool turn",
        ylabel="R_t",
        title="Returns of the turns",
        xticks=range(4),
        xticklabels=["1", "2", "3", "4"],
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    return figure


def advantage():
    """Effect of the floor under the std: a group that differs by one saved call only."""
    gaps = np.linspace(0.0, 1.0, 101)
    figure, axes = plt.subplots()
    for scale, colour in (("floor", BLUE), ("group", ORANGE)):
        rewards = torch.tensor([[float(gap)] + [0.0] * 7 for gap in gaps])
        values = group_advantages(rewards, scale_rewards=scale)[:, 0]
        axes.plot(gaps, values.tolist(), color=colour, label=f"scale_rewards: {scale}")
    axes.set(
        xlabel="reward of one trajectory above its seven siblings",
        ylabel="its advantage",
        title="Small differences stay small",
    )
    axes.legend()
    return figure


FIGURES = (difficulty, calls, failing, turns, advantage)


def main(folder=FOLDER):
    """Write every figure as an SVG file."""
    mpl.rcParams.update(STYLE)
    for draw in FIGURES:
        figure = draw()
        path = Path(folder) / f"reward-{draw.__name__}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
