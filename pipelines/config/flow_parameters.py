"""Parameters of our flows, as the deployments and schedules of flows.yaml give them.

Flows of other modules have parameters of their own, which are not checked here. Neither is a value
that Prefect fills in when it deploys (``{{ prefect.variables.suite }}``).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from .deployments import FLOWS_MODULE, Deployment, FlowsFile
from .key_names import Location, nearest_key
from .presets import with_overrides
from .registry import earlier_stages, known_names
from .settings import Preset, preset_model
from .strict_model import StrictModel
from .yaml_file import SettingsError

PIPELINE = "pipeline"
"""Name of the flow that runs all stages."""
Text = Annotated[str, Field(min_length=1)]
Parameters = Mapping[str, Any]
Problem = ErrorDetails | tuple[Location, str]
"""What pydantic reports, or the place and the reason."""


class FlowParameters(StrictModel):
    """Parameters of each of our flows; ``flows.parameters`` explains them."""

    preset: Text | None = None
    seed: Annotated[int, Field(ge=0, strict=True)] | None = None
    suite: Text | None = None
    refresh: bool = False
    from_run: Text | None = None
    overrides: dict[str, Any] | None = None
    run: Text | None = None


def parameter_problems(file: FlowsFile) -> Generator[Problem]:
    """Yield what is wrong with the deployments of our flows and with their parameters.

    Raises:
        StageLoadError: A stage of another package cannot be loaded.
    """
    for number, entry in enumerate(file.deployments):
        module, _, flow = entry.entrypoint.rpartition(".")
        if module != FLOWS_MODULE:
            continue
        known = (PIPELINE, *known_names())
        place: Location = ("deployments", number)
        if flow not in known:
            reason = f"there is no flow {flow!r}{nearest_key(flow, known)}"
            yield (*place, "entrypoint"), reason
            continue
        yield from _problems_of(entry, flow, file.presets, place)


def _problems_of(
    entry: Deployment, flow: str, presets: Mapping[str, Preset], place: Location
) -> Generator[Problem]:
    """Yield the problems of a deployment; if it has none, those of its schedules over it."""
    found = list(_problems(entry.parameters, {}, flow, presets, (*place, "parameters")))
    yield from found
    for number, schedule in enumerate(() if found else entry.schedules):
        at = (*place, "schedules", number, "parameters")
        yield from _problems(schedule.parameters, entry.parameters, flow, presets, at)


def _problems(
    own: Parameters, under: Parameters, flow: str, presets: Mapping[str, Preset], place: Location
) -> Generator[Problem]:
    """Yield the problems of parameters that are laid over others, which have none."""
    read = {key: value for key, value in own.items() if not _is_filled_in(key, value)}
    try:
        FlowParameters.model_validate(read)
    except ValidationError as error:
        for item in error.errors():
            item["loc"] = (*place, *item["loc"])
            yield item
        return
    given = {**under, **own}
    if own and (reason := _more_than_run(given)):
        yield (*place, "run" if "run" in own else next(iter(own))), reason
    preset: Preset | None = presets.get(str(given.get("preset")))
    if preset is None and (name := read.get("preset")) is not None:
        yield (*place, "preset"), f"there is no preset {name!r}{nearest_key(name, list(presets))}"
        return
    preset = preset or preset_model()()  # that of the newest run, or one that Prefect fills in
    for key, value in (given.get("overrides") or {}).items():
        at: Location = ("overrides", key) if "overrides" in own else ("suite",)
        reason = _wrong_override(key, value, preset) or _unread_override(key, flow, given)
        if reason and at[0] in own:
            yield (*place, *at), reason


def _more_than_run(given: Parameters) -> str | None:
    """Return why every flow refuses to continue a run with these parameters; None if none does."""
    others = [
        key
        for key, value in given.items()
        if key != "run" and value is not None and value is not False and value != {}
    ]
    if given.get("run") is None or not others:
        return None
    return (
        "run continues a run as it was resolved: leave the other parameters out "
        f"({', '.join(others)}), or name it as from_run to change them"
    )


def _is_filled_in(key: str, value: object) -> bool:
    """Return whether Prefect fills in a known parameter; overrides are looked at one by one."""
    if key == "overrides" and isinstance(value, Mapping):
        return False
    return key in FlowParameters.model_fields and _has_template(value)


def _has_template(value: object) -> bool:
    return "{{" in repr(value)


def _wrong_override(key: str, value: object, preset: Preset) -> str | None:
    """Return why a preset does not take a value at a key; None if it does."""
    if _has_template(value):
        return None
    try:
        with_overrides(preset, {key: value})
    except SettingsError as error:
        return re.sub(r"^--set \S+: ", "", str(error))
    return None


def _unread_override(key: str, flow: str, given: Parameters) -> str | None:
    """Return why every run of a flow refuses an override; None if there is no reason."""
    section = key.partition(".")[0]
    earlier = () if flow == PIPELINE else earlier_stages(flow)
    if section in earlier:
        return f"{flow} takes a finished {section} as it is: give it to {section}, or leave it out"
    if section == "suite" and earlier:
        return f"{flow} takes the tasks of the curation as they are: leave it out"
    if section == "suite" and given.get("suite") is not None:
        return "the parameter suite is given too: keep one of them"
    return None
