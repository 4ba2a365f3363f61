"""The stages of the pipeline: our own, and those that other packages add or replace.

A stage is declared once, with `stage`. Another package names its stages in the entry-point group
``codedance.stages``; one with the name of a built-in stage replaces it. The command, the flow, the
deployment, the section of a preset, the lineage and the report follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from .stage_checks import check_function, check_names, check_result, check_settings, inner_function
from .stage_names import is_usable, name_problem

if TYPE_CHECKING:
    from .settings import Preset
    from .strict_model import StrictModel

GROUP = "codedance.stages"
"""Entry-point group of the stages of other packages."""
BUILT_IN = {
    "curate": "Select the train tasks that are worth training on, and demonstrate them.",
    "sft": "Train the base model on the curated demonstrations (cold start).",
    "grpo": "Train the cold start's model on the curated tasks (GRPO).",
    "evaluate": "Evaluate the checkpoints on the same held-out tasks, greedy and sampled.",
}
"""Our own stages in order, with their summaries; each is declared in a module of its name."""
EVALUATION = "evaluate"
"""Stage whose results the report of a pipeline run shows."""
_MODULES = "codedance.pipelines.stages"


class StageLoadError(ValueError):
    """A stage of another package cannot be used; the message names the package and the remedy."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, as it is declared.

    Attributes:
        name: Name of its command, its flow and its section in a preset.
        run: Function that does the work: takes a `StageContext`, returns a `StageResult`.
        inputs: Stages whose finished runs it reads.
        settings: Model of its section in a preset, with a default for every field; None for no
            section, or, where it replaces a stage, for that one's.
        exclusive: Whether only one runs at a time per host, as for a training.
        distributed: Whether it can run as several processes (``--processes``).
        runs_code: Whether it opens the sandbox, so that its command takes ``--sandbox``.
        reads: Further values of the preset that decide its result.
        decides: Function that returns what else decides its result, such as digests of files.
        charts: Metrics drawn on its pages, by the chart's title.
        compared: Metrics whose first and last steps its page in MLflow compares.
        results: Function that returns its results as lines of Markdown, from the store, the run and
            its folder; None for a table of its outputs.
    """

    name: str
    run: Callable[[Any], Any]
    inputs: tuple[str, ...] = ()
    settings: type[StrictModel] | None = None
    exclusive: bool = False
    distributed: bool = False
    runs_code: bool = False
    reads: tuple[str, ...] = ()
    decides: Callable[[Preset], Mapping[str, Any]] | None = None
    charts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    compared: tuple[str, ...] = ()
    results: Callable[[Any, Any, Any], list[str]] | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        lines = (inner_function(self.run).__doc__ or "").strip().splitlines()
        return lines[0] if lines else f"Run the stage {self.name}."


def stage(
    name: str,
    *,
    inputs: Iterable[str] = (),
    settings: type[StrictModel] | None = None,
    **options: Any,  # noqa: ANN401 - the further attributes of `Stage`
) -> Callable[[Callable[[Any], Any]], Stage]:
    """Declare the decorated function as a stage.

    Args:
        name: Lower-case letters, digits and underscores, beginning with a letter.
        inputs: Stages whose finished runs it reads.
        settings: Model of its section in a preset.
        options: Further attributes of `Stage`.

    Raises:
        ValueError: The name cannot be used, or ``inputs`` is a single name.
    """
    if problem := name_problem(name):
        raise ValueError(problem)
    check_names("inputs", inputs)
    return lambda run: Stage(name, run, tuple(inputs), settings, **options)


@cache
def entries() -> Mapping[str, EntryPoint]:
    """Return the entry points of other packages' stages by name; none of them is loaded."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=_sort_key)}


def _sort_key(point: EntryPoint) -> tuple[str, str]:
    return point.name, package_of(point)


def package_of(point: EntryPoint) -> str:
    """Return name and version of the package that an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def known_names() -> tuple[str, ...]:
    """Return the names of all stages, our own first; no stage is loaded.

    An entry point with a name that no stage can have is left out: loading the stages refuses it.
    """
    return (*BUILT_IN, *(one for one in entries() if one not in BUILT_IN and is_usable(one)))


def find_stage(name: str) -> Stage:
    """Return a stage, loaded on the first call.

    Raises:
        KeyError: There is no such stage.
        StageLoadError: It belongs to another package and cannot be loaded.
    """
    if name in entries():
        return _loaded(name)
    if name not in BUILT_IN:
        raise KeyError(name)
    return getattr(import_module(f"{_MODULES}.{name}"), f"run_{name}")


@cache
def _loaded(name: str) -> Stage:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    package = package_of(points[0])
    if len(points) > 1:
        others = " and ".join(package_of(point) for point in points)
        raise StageLoadError(f"{others} both declare the stage {name!r}: uninstall one of them")
    problem = f"the stage {name!r} of {package} cannot be used"
    if wrong := name_problem(name):
        raise StageLoadError(f"{problem}: {wrong}")
    try:
        found = points[0].load()
    except (Exception, SystemExit) as error:
        raise StageLoadError(
            f"{problem}: {type(error).__name__}: {error}; correct it, or uninstall the package"
        ) from error
    if not isinstance(found, Stage):
        raise StageLoadError(
            f"{problem}: {points[0].value} is not a stage: decorate the function with @stage"
        )
    if found.name != name:
        raise StageLoadError(
            f"{problem}: it is declared as {found.name!r}: give the entry point that name"
        )
    try:
        _check(found)
    except ValueError as error:
        raise StageLoadError(f"{problem}: {error}") from error
    return replace(found, run=_checking_result(found, package))


def _check(found: Stage) -> None:
    """Refuse a declaration that would fail, or be ignored, when the stage runs."""
    from .settings import Preset

    check_function(found.run)
    check_names("inputs", found.inputs)
    check_names("reads", found.reads, {*Preset.model_fields, *known_names()})
    check_settings(found.settings)


def _checking_result(found: Stage, package: str) -> Callable[[Any], Any]:
    """Return the stage's function, which refuses what is no result."""

    @wraps(found.run)
    def run(context: Any) -> Any:  # noqa: ANN401 - StageContext, and the stage's result
        made = found.run(context)
        try:
            check_result(made)
        except ValueError as error:
            raise StageLoadError(
                f"the stage {found.name!r} of {package} has no result: {error}"
            ) from error
        return made

    return run


def stage_names() -> tuple[str, ...]:
    """Return the stages in the order in which they run: each after its inputs.

    Raises:
        StageLoadError: A stage cannot be loaded, reads one that does not exist, or needs itself.
    """
    return _ordered() if entries() else tuple(BUILT_IN)


@cache
def _ordered() -> tuple[str, ...]:
    names = (*BUILT_IN, *(name for name in entries() if name not in BUILT_IN))
    inputs = {name: find_stage(name).inputs for name in names}
    for name, wanted in inputs.items():
        if missing := [one for one in wanted if one not in inputs]:
            raise StageLoadError(
                f"the stage {name!r}{_by(name)} reads {missing[0]!r}, which does not exist; "
                f"there are {', '.join(names)}"
            )
    ordered: list[str] = []
    while len(ordered) < len(names):
        ready = [n for n in names if n not in ordered and set(inputs[n]) <= set(ordered)]
        if not ready:
            waiting = [name for name in names if name not in ordered]
            raise StageLoadError(
                f"the stages {', '.join(waiting)} need each other: remove one of their inputs"
            )
        ordered.append(ready[0])
    return tuple(ordered)


def _by(name: str) -> str:
    return f" of {package_of(entries()[name])}" if name in entries() else ""


def earlier_stages(name: str) -> tuple[str, ...]:
    """Return the stages that a stage needs, directly or through others, in order.

    Raises:
        StageLoadError: As for `stage_names`.
    """
    order = stage_names()
    needed: set[str] = set()
    pending = list(find_stage(name).inputs)
    while pending:
        one = pending.pop()
        if one not in needed:
            needed.add(one)
            pending += find_stage(one).inputs
    return tuple(one for one in order if one in needed)


def added_settings() -> dict[str, type[StrictModel]]:
    """Return the models of the sections that other packages' stages add or replace, by stage.

    Raises:
        StageLoadError: A stage cannot be loaded.
    """
    found = {name: find_stage(name).settings for name in entries()}
    return {name: settings for name, settings in found.items() if settings is not None}


def origin(name: str) -> dict[str, str]:
    """Return package, version and source digest of another package's stage; empty for our own.

    Our own are part of the code version. The source is the file of the entry point and, where the
    function comes from another one, that of the function within its decorators.
    """
    from hashlib import sha256

    if name not in entries():
        return {}
    point, run = entries()[name], find_stage(name).run
    digest = sha256(b"".join(_sources(point.module, inner_function(run))))
    return {"package": package_of(point), "source": digest.hexdigest()}


def _sources(module: str, function: Callable[..., Any]) -> list[bytes]:
    """Return the content of the files of a module and of a function, each file once."""
    from inspect import getsourcefile
    from pathlib import Path

    found: dict[str, bytes] = {}
    for one in (import_module(module), function, type(function)):
        with suppress(TypeError, OSError):  # compiled, or not from a file
            file = getsourcefile(one)
            if file is not None and file not in found:
                found[file] = Path(file).read_bytes()
    return list(found.values())
