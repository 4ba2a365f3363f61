"""Evaluates one policy on a suite, outside any pipeline run; resumes after an interruption."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ....policies.inference.endpoint import OPENAI_PREFIX
from ....policies.inference.model_files import model_state
from ....policies.inference.server_words import without_credentials
from ...analysis.results import summarise
from ...config.flows_file import load_flows_file, load_preset
from ...config.presets import flat_overrides, with_overrides
from ...config.registry import EVALUATION, entries, package_of
from ...config.server_settings import ServerSettings
from ...config.settings import preset_model
from ...config.yaml_file import SettingsError
from ...runs.context import StageInterrupted
from ...runs.overrides import resolve_suite
from ...runs.runner import FRESH, ResolvedRun, at_work, make_request, run_among
from ...runs.session import RunSession, open_session
from ...runs.stage_parameters import sections_read, stage_parameters
from ...runs.used_sandbox import sandbox_for
from ...serving.engine.policy import refuse_unserved
from ...stages.asked import notes_state
from ...store.lineage import Lineage, StageRequest, StageRun
from ..output import print_table, say, summary_document
from ..server_options import with_server

DEFAULTS = "defaults"
"""Preset that an evaluation records where flows.yaml has no ``quick``."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Options of an evaluation.

    Attributes:
        preset: Preset with the parameters; None for ``quick``.
        fresh: Whether to rerun a finished evaluation; an interrupted rerun resumes.
        sandbox: Sandbox backend; None for that of the run that made the policy, else the preset's.
        server: Server settings of a policy ``openai:MODEL`` over the preset's; None keeps one.
        seed: Random seed of the sampled episodes, and of every episode's code.
        overrides: Values over the preset's, by their place: ``{"evaluate.batch_size": 64}``.
    """

    preset: str | None = None
    fresh: bool = False
    sandbox: str | None = None
    server: Mapping[str, float | str | None] = field(
        default_factory=dict[str, "float | str | None"]
    )
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])


def judge(policy: str, suite: str, limit: int | None, how: Judging) -> dict[str, object]:
    """Evaluate a policy greedy and sampled; print the table, store the episodes, return a document.

    The document has the run's id and its metrics.
    """
    resolved = _resolve(policy, suite, limit, how)
    request = make_request("evaluate", resolved, _parameters(policy, resolved), {})
    with open_session() as session:
        same = _same_work(session.store.lineage, request)
        if how.fresh:
            same = [run for run in same if FRESH in run.parameters and not run.is_complete]
            token = same[0].parameters[FRESH] if same else secrets.token_hex(4)
            request = replace(request, parameters={**request.parameters, FRESH: token})
        try:
            with at_work(session, request):
                same = [session.store.lineage.get(run.id) for run in same]
                same = [run for run in same if run.is_complete or run.key == request.key]
                same += session.store.lineage.find(stage=request.stage, key=request.key)
                run = run_among(session, same, request, resolved.preset, parent=None)
        except (StageInterrupted, KeyboardInterrupt):
            say("stopped; the same command resumes it")
            raise
        session.tracker.touch(run.id)
        return _print(session, run.id)


def _resolve(policy: str, suite: str, limit: int | None, how: Judging) -> ResolvedRun:
    """Return the parameters: the preset's, with the options of the command line over them."""
    known = load_flows_file().presets
    settings = load_preset(how.preset) if how.preset else known.get("quick", preset_model()())
    overrides = flat_overrides(settings, how.overrides)
    _refuse_unread(policy, overrides, how, limit)
    settings = settings.model_copy(update={"sandbox": sandbox_for(policy, how.sandbox, settings)})
    settings = with_overrides(settings, overrides)
    changes: dict[str, Any] = {
        "suite": resolve_suite(suite),
        "server": with_server(settings.server, **how.server),
    }
    if limit is not None and "limit" not in type(settings.evaluate).model_fields:
        raise SettingsError(
            f"--limit: the evaluation of {package_of(entries()[EVALUATION])} has no such setting"
        )
    if limit is not None:
        changes["evaluate"] = settings.evaluate.model_copy(update={"limit": limit})
    name = how.preset or ("quick" if "quick" in known else DEFAULTS)
    return ResolvedRun(name, settings.model_copy(update=changes), how.seed)


def _refuse_unread(
    policy: str, overrides: Mapping[str, Any], how: Judging, limit: int | None
) -> None:
    """Refuse overrides that an evaluation does not read, and those of what an option says too."""
    given = {
        "evaluate.limit": limit,
        "sandbox.backend": how.sandbox,
        **{f"server.{name}": value for name, value in how.server.items()},
    }
    read = sorted(sections_read(EVALUATION, preset_model()()), key=lambda name: name != EVALUATION)
    if policy.startswith(OPENAI_PREFIX):
        read.append("server")
    if any(key.startswith("rollout.") for key in overrides):
        refuse_unserved(policy)
    for key in overrides:
        if key.partition(".")[0] not in read:
            raise SettingsError(
                f"--set {key}: an evaluation of {policy} reads {', '.join(read)}; its tasks are "
                "those of --suite"
            )
        twice = [name for name, value in given.items() if value is not None and name == key]
        if twice:
            option = key.rpartition(".")[2].replace("_", "-").replace("backend", "sandbox")
            raise SettingsError(f"--set {key}: --{option} is given too: keep one of them")


def _same_work(lineage: Lineage, request: StageRequest) -> list[StageRun]:
    """Return the runs with the same parameters, newest first, regardless of --refresh."""

    def key(run: StageRun) -> str:
        parameters = {name: value for name, value in run.parameters.items() if name != FRESH}
        return replace(request, parameters=parameters, inputs=run.inputs, seed=run.seed).key

    found = lineage.find(stage=request.stage, code_version=request.code_version)
    return [run for run in found if run.parent is None and key(run) == request.key]


def _print(session: RunSession, run_id: str) -> dict[str, object]:
    summary = summarise(session.store, session.store.lineage.get(run_id))
    print_table(summary)
    for phase, rate in summary.within_tenth.items():
        say(f"{phase}: {rate.share:.1%} within 10 % of the true count")
    say(f"stored as {run_id}")
    return {"run": run_id, **summary_document(summary)}


def _parameters(policy: str, resolved: ResolvedRun) -> dict[str, Any]:
    return {
        **stage_parameters(EVALUATION, resolved.preset),
        "policies": {_short_name(policy): policy},
        "weights": model_state(policy),
        **_where(policy, resolved.preset.server),
    }


def _where(policy: str, server: ServerSettings) -> dict[str, Any]:
    """Return what identifies a policy besides the model's name: address, and notes if any."""
    if not policy.startswith(OPENAI_PREFIX):
        return {}
    url = server.base_url or os.environ.get("OPENAI_BASE_URL")
    found: dict[str, Any] = {"base_url": url and without_credentials(url)}
    return found | notes_state(server)


def _short_name(policy: str) -> str:
    """Return a name for tables, without slashes, which separate the mode."""
    return policy.removeprefix(OPENAI_PREFIX).rstrip("/").split("/")[-1]
