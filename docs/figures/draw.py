"""Figures of the documentation: the reward's, and the architecture.

Run: python docs/figures/draw.py [FOLDER]. The reward's figures are drawn with the functions that
training calls: every point is a value of codedance.envs.rewards or of
codedance.policies.training.grpo.advantages.
"""

from __future__ import annotations

import sys
from itertools import pairwise
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
from matplotlib.patches import FancyBboxPatch

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
ROOMS = {  # in the order of imports: name, colour, contents
    "sandbox": ("#e8912d", "sessions that run\nmodel-written code"),
    "envs": ("#2f9e5b", "tasks, grading, rewards,\nthe environment"),
    "policies": ("#1f6feb", "models, rollouts,\nSFT and GRPO"),
    "pipelines": ("#8250df", "stages, store, reports,\ncommand line"),
}
STEPS = {  # name: room, column, row
    "environment": ("envs", 3, 2),
    "sandbox": ("sandbox", 4, 2),
    "source": ("envs", 0, 1),
    "curate": ("pipelines", 1, 1),
    "Task": ("envs", 2, 1),
    "rollout": ("policies", 3, 1),
    "Trajectory": ("envs", 4, 1),
    "store": ("pipelines", 5, 1),
    "MLflow": (None, 6, 1),
    "advantages": ("policies", 5, 0),
    "update": ("policies", 4, 0),
    "checkpoint": ("policies", 3, 0),
    "evaluate": ("pipelines", 2, 0),
    "report": ("pipelines", 1, 0),
}
NOTE = "Packages import only those to their left. A step below has the colour of its package."
FLOWS = (
    ("source", "curate", "Task", "rollout", "Trajectory", "store"),
    ("store", "advantages", "update", "checkpoint", "evaluate", "report"),
    ("checkpoint", "rollout"),
)


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


def box(axes, centre, text, *, colour, width=0.84, height=0.46):
    """Draw a rounded box with a text around a point."""
    x, y = centre[0] - width / 2, centre[1] - height / 2
    style = {"boxstyle": "round,pad=0,rounding_size=0.07", "edgecolor": colour, "linewidth": 1.4}
    axes.add_patch(FancyBboxPatch((x, y), width, height, facecolor=f"{colour}1f", **style))
    axes.text(*centre, text, ha="center", va="center", fontsize=10)


def arrow(axes, start, end, *, style="-|>", line="-"):
    """Draw an arrow from the edge of one box to the edge of another in its row or column."""
    (x, y), (u, v) = start, end
    gap = (0.43, 0) if y == v else (0, 0.25)
    way = (np.sign(u - x), np.sign(v - y))
    ends = [(x + way[0] * gap[0], y + way[1] * gap[1]), (u - way[0] * gap[0], v - way[1] * gap[1])]
    shape = {"arrowstyle": style, "color": "#444c56", "linestyle": line, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", ends[1], ends[0], arrowprops=shape)


def architecture():
    """Rooms in the order of their imports, and the way of the data through them."""
    figure, axes = plt.subplots(figsize=(10.6, 5.0))
    axes.set(xlim=(-0.5, 6.5), ylim=(-0.45, 3.9))
    axes.axis("off")
    for place, (room, (colour, contents)) in enumerate(ROOMS.items()):
        centre = (0.305 + 1.797 * place, 3.3)
        box(axes, centre, "", colour=colour, width=1.45, height=0.92)
        axes.text(centre[0], 3.55, room, ha="center", va="center", fontsize=11, weight="bold")
        axes.text(centre[0], 3.17, contents, ha="center", va="center", fontsize=9)
        if place:
            arrow(axes, (centre[0] - 0.31, 3.3), (centre[0] - 1.48, 3.3))
    axes.text(-0.42, 2.58, NOTE, fontsize=9)
    places = {name: (column, row) for name, (_, column, row) in STEPS.items()}
    for name, (room, *_) in STEPS.items():
        box(axes, places[name], name, colour=ROOMS[room][0] if room else GREY)
    for flow in FLOWS:
        for first, second in pairwise(flow):
            arrow(axes, places[first], places[second])
    arrow(axes, places["rollout"], places["environment"], style="<|-|>")
    arrow(axes, places["environment"], places["sandbox"], style="<|-|>")
    arrow(axes, places["store"], places["MLflow"], line="--")
    axes.text(6, 0.56, "shows what\nthe store holds", ha="center", va="center", fontsize=9)
    axes.text(3.06, 0.5, "next policy", va="center", fontsize=9)
    return figure


FIGURES = {
    "reward-difficulty": difficulty,
    "reward-calls": calls,
    "reward-failing": failing,
    "reward-turns": turns,
    "reward-advantage": advantage,
    "architecture": architecture,
}


def main(folder=FOLDER):
    """Write every figure as an SVG file."""
    mpl.rcParams.update(STYLE)
    for name, draw in FIGURES.items():
        figure = draw()
        path = Path(folder) / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
