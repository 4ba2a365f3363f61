"""Curation: run a weak and a strong policy on candidate train tasks, keep those worth training on.

The decision on every candidate and its reason are stored; every demonstration is a stored
trajectory of the environment itself, so that each tool reply in it is a real one.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...envs.episode import Episode
from ...envs.types import Difficulty, Task, Trajectory
from ...policies.inference.endpoint import OPENAI_PREFIX
from ...policies.inference.model_files import model_states
from ...policies.interface import Policy, Sampling
from ..analysis.similarity import Fingerprint, Twins, find_twins, fingerprint
from ..config.registry import stage
from ..config.settings import CurateSettings, EvaluateSettings, Preset, SFTSettings
from ..config.strict_model import read_as
from ..runs.context import StageContext, StageResult
from ..runs.run_page import digest_of
from ..store.episodes import Episode as StoredEpisode
from ..store.lineage import LOST
from .asked import notes_state, opened_policy, report_usage
from .cards import curation_lines, write_data_card
from .collect import Session, collect
from .curation import Candidate, Decision, Rules, count_reasons, decide
from .draws import draw_candidates, held_out_tasks
from .training import check_trainings


def _deciding(preset: Preset) -> dict[str, Any]:
    """Return what decides the curation besides its own settings."""
    settings, base = read_as(preset.curate, CurateSettings), read_as(preset.sft, SFTSettings).base
    policies = (settings.weak, settings.strong)
    found: dict[str, Any] = model_states([base, *policies])
    found |= {"held_out": read_as(preset.evaluate, EvaluateSettings).limit, "base": base}
    if any(one.startswith(OPENAI_PREFIX) for one in policies):
        found["base_url"] = preset.server.base_url
        found |= notes_state(preset.server)
    return found


@stage(
    "curate",
    settings=CurateSettings,
    runs_code=True,
    reads=("max_new_tokens",),
    decides=_deciding,
    results=curation_lines,
)
def run_curate(context: StageContext) -> StageResult:
    """Select the train tasks that are worth training on, and demonstrate them."""
    settings = read_as(context.preset.curate, CurateSettings)
    check_trainings(context.preset)
    candidates, known = _draw(context)
    evaluation = read_as(context.preset.evaluate, EvaluateSettings)
    held_out = held_out_tasks(context.preset.suite, evaluation.limit)
    leaks, duplicates = find_copies(candidates, held_out, settings.near_duplicate_bits)
    sound = [t for t in candidates if t.id not in leaks and t.id not in duplicates]
    trained_with = [task for task in sound if _has_teacher(settings, task)]
    lost: dict[str, int] = {}
    with _weak_policy(context, known) as weak:
        lost["weak"] = _collect(context, "weak", weak, sound, settings.weak_samples)
    with _strong_policy(context) as strong:
        lost["strong"] = _collect(context, "strong", strong, trained_with, settings.strong_samples)
    keys = context.store.add_tasks(candidates)
    rates = {name: pass_rates(context.store.episodes(context.run.id, name)) for name in _PHASES}
    judged = [
        Candidate(
            key=keys[task.id],
            family=task.family,
            weak_rate=rates["weak"].get(keys[task.id]),
            strong_rate=rates["strong"].get(keys[task.id]),
            leak=leaks.get(task.id),
            duplicate=duplicates.get(task.id),
            has_teacher=_has_teacher(settings, task),
        )
        for task in candidates
    ]
    decisions = decide(judged, _rules(settings), seed=context.seed)
    _show_directly(context, candidates, decisions)
    made = _finish(context, candidates, judged, decisions)
    return replace(made, outputs={**made.outputs, LOST: lost}) if any(lost.values()) else made


def _draw(context: StageContext) -> tuple[list[Task], list[Task]]:
    """Draw the candidates and, disjoint from them, the tasks that the weak policy knows."""
    settings = read_as(context.preset.curate, CurateSettings)
    wanted = settings.candidates + settings.known
    with context.progress.bar("candidates", wanted) as bar:

        def on_task(count: int) -> None:
            context.stop.check()
            bar.reach(count)

        drawn = draw_candidates(context.preset.suite, wanted, seed=context.seed, on_task=on_task)
    random.Random(context.seed).shuffle(drawn)
    known = settings.known if len(drawn) == wanted else len(drawn) // FEW_KNOWN
    return drawn[known:], drawn[:known]


def _weak_policy(
    context: StageContext, known: Sequence[Task]
) -> contextlib.AbstractContextManager[Policy]:
    from ...policies.scripted.teacher import WeakPolicy

    weak = read_as(context.preset.curate, CurateSettings).weak
    if weak == "thumbnail":
        return contextlib.nullcontext(WeakPolicy(known))
    return opened_policy(context, weak)


def _strong_policy(context: StageContext) -> contextlib.AbstractContextManager[Policy]:
    from ...policies.scripted.teacher import TeacherPolicy, TeacherStyle

    settings = read_as(context.preset.curate, CurateSettings)
    if settings.strong == "teacher":
        style = TeacherStyle(settings.loose_share, settings.wander_share)
        return contextlib.nullcontext(TeacherPolicy(style))
    return opened_policy(context, settings.strong)


def _has_teacher(settings: CurateSettings, task: Task) -> bool:
    from ...policies.scripted.oracle import program_for

    return settings.strong != "teacher" or program_for(task.question) is not None


FEW_KNOWN = 5
"""Where there are too few tasks, the weak policy knows the answers of one in this many."""
_PHASES = ("weak", "strong")


def find_copies(
    candidates: Sequence[Task], held_out: Sequence[Task], near_bits: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the candidates that copy a held-out task, and those that copy an earlier candidate.

    Both map the candidate's id to the id of the task that it copies.
    """
    prints = [fingerprint(task) for task in candidates]
    against = (fingerprint(task) for task in held_out)
    leaks = find_twins(prints, against=against, near_bits=near_bits)
    seen = Twins(near_bits)
    duplicates: dict[str, str] = {}
    for item in prints:
        _note_duplicate(item, seen, duplicates)
    return {task_id: twin for task_id, (twin, _) in leaks.items()}, duplicates


def pass_rates(episodes: Sequence[StoredEpisode]) -> dict[str, float]:
    """Return the share of right answers among the scored episodes, by task key."""
    scored: defaultdict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        if episode.is_valid and episode.accuracy is not None:
            scored[episode.task_key].append(episode.accuracy)
    return {key: sum(values) / len(values) for key, values in scored.items()}


def _note_duplicate(item: Fingerprint, seen: Twins, duplicates: dict[str, str]) -> None:
    twin = seen.find(item)
    if twin is None:
        seen.add(item)
    else:
        duplicates[item.task_id] = twin[0]


def _collect(
    context: StageContext, phase: str, policy: Policy, tasks: Sequence[Task], samples: int
) -> int:
    """Collect trajectories of a policy on the tasks; return the number of lost episodes."""
    sampling = Sampling(temperature=1.0, max_new_tokens=context.preset.max_new_tokens)
    turns = read_as(context.preset.curate, CurateSettings).max_turns
    found = collect(context, policy, tasks, Session(phase, samples, sampling, turns))
    found.check()
    if found.lost:
        context.progress.say(
            f"{phase}: {found.lost} of {found.wanted} episodes lost, which are not counted: "
            f"{found.losses.reason}"
        )
    report_usage(context, phase, policy)
    return found.lost


def _rules(settings: CurateSettings) -> Rules:
    return Rules(
        easy_above=settings.easy_above,
        hard_below=settings.hard_below,
        trivial_share=settings.trivial_share,
        tool_shares={
            Difficulty.EASY: settings.easy_tool_share,
            Difficulty.MEDIUM: settings.medium_tool_share,
            Difficulty.HARD: settings.hard_tool_share,
        },
    )


def _show_directly(
    context: StageContext, candidates: Sequence[Task], decisions: Sequence[Decision]
) -> None:
    """Store the demonstrations without tools, made in the environment like all others."""
    from ...policies.scripted.teacher import direct_demonstration

    trajectories: list[Trajectory] = []
    tasks: list[Task] = []
    for task, decision in zip(candidates, decisions, strict=True):
        if decision.demonstration != "direct":
            continue
        episode = Episode(task, context.sandbox(), system_prompt="", seed=context.seed)
        episode.step(direct_demonstration(task).messages[-1].text)
        trajectories.append(episode.trajectory("labels"))
        tasks.append(task)
        episode.close()
    context.store.add_trajectories(tasks, trajectories, stage_run=context.run.id, phase="direct")


def _finish(
    context: StageContext,
    tasks: Sequence[Task],
    judged: Sequence[Candidate],
    decisions: Sequence[Decision],
) -> StageResult:
    rows = [
        {
            "task_key": decision.key,
            "position": position,
            "is_kept": decision.is_kept,
            "reason": decision.reason,
            "band": str(decision.difficulty),
            "weak_rate": candidate.weak_rate,
            "strong_rate": candidate.strong_rate,
            "demonstration": decision.demonstration,
        }
        for position, (candidate, decision) in enumerate(zip(judged, decisions, strict=True))
    ]
    unique = {row["task_key"]: row for row in reversed(rows)}
    context.store.set_curation(context.run.id, list(unique.values()))
    card = write_data_card(context, tasks, judged, decisions)
    reasons = count_reasons(decisions)
    context.tracker.metrics(context.run.id, 0, _figures(reasons, decisions))
    context.tracker.dataset(
        context.run.id,
        f"{context.preset.suite} train",
        digest=digest_of(decision.key for decision in decisions),
        profile={"candidates": len(tasks), **reasons},
        use="curation",
    )
    outputs = {"candidates": len(tasks), "reasons": reasons, "card": str(card)}
    return StageResult(outputs, artifacts=(card,))


def _figures(reasons: Mapping[str, int], decisions: Sequence[Decision]) -> dict[str, float]:
    kept = [decision for decision in decisions if decision.is_kept]
    figures = {f"candidates/{reason}": float(count) for reason, count in reasons.items()}
    for difficulty in Difficulty:
        figures[f"kept/{difficulty}"] = float(
            sum(decision.difficulty is difficulty for decision in kept)
        )
    figures["kept/tools"] = float(sum(d.demonstration == "tools" for d in kept))
    return figures
