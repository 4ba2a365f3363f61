"""The protocol: arms, claims and sizes, read from a file fixed before the first run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from codedance.envs.parsing import Interface
from codedance.pipelines.config.sections.sandbox_settings import Above, Count
from codedance.pipelines.config.server_settings import Share
from codedance.pipelines.config.settings import Preset
from codedance.pipelines.config.strict_model import StrictModel
from pydantic import Field, ValidationError, model_validator

PACKAGED = Path(__file__).with_name("protocol.yaml")
Metric = Literal["accuracy", "tool_calls", "execution_success"]
Mode = Literal["greedy", "sampled"]


class ProtocolError(ValueError):
    """The protocol is invalid; the message says where and why."""


class Arm(StrictModel):
    """One model that is trained and evaluated.

    Attributes:
        name: Name used in claims.
        stage: ``sft`` or ``grpo``.
        start: Arm whose model it starts from; None for the untrained one.
        interface: Tool of the policy.
        reward: Reward preset.
        scale_rewards: Scaling of a group's rewards.
        without_families: Families left out of reinforcement learning.
        shown_directly: Families whose demonstrations use no tool.
        easy_alone: Families of which only easy tasks are demonstrated, without a tool.
        as_long_as: Arm with the same training time, converted to steps of ``start``'s duration.
    """

    name: str
    stage: Literal["sft", "grpo"]
    start: str | None = None
    interface: Interface = "code"
    reward: Literal["outcome", "tool_bonus", "bat_sequence", "bat", "bat_paper"] = "bat"
    scale_rewards: Literal["floor", "group", "none"] = "floor"
    without_families: tuple[str, ...] = ()
    shown_directly: tuple[str, ...] = ()
    easy_alone: tuple[str, ...] = ()
    as_long_as: str | None = None


class Claim(StrictModel):
    """A claim about the metrics.

    Attributes:
        name: Short name.
        says: The claim in a sentence.
        kind: ``compare``: first - second; ``level``: first alone; ``any_family``: compare, for at
            least one of ``tasks``; ``emergence``: a composition that demonstrations lack.
        metric: Metric of the claim.
        mode: Decoding mode, greedy or sampled.
        tasks: Difficulties or families that count; all if empty.
        first: Arm of the claim.
        second: Arms that it is compared with, one by one.
        above: Bound that the figure has to exceed.
        family: Family in which emergence is tested; None for all.
        share: Minimum share of all trajectories with a frequent composition.
    """

    name: str
    says: str
    kind: Literal["compare", "level", "any_family", "emergence"]
    metric: Metric = "accuracy"
    mode: Mode = "greedy"
    tasks: tuple[str, ...] = ()
    first: str
    second: tuple[str, ...] = ()
    above: float = 0.0
    family: str | None = None
    share: Share = 0.05

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms of the claim."""
        return self.first, *self.second


class Costs(StrictModel):
    """Estimates for the remaining time, in seconds, until runs have been measured.

    Attributes:
        curate: Time of a curation.
        sft: Time per SFT step.
        grpo: Time per GRPO step.
        episode: Time per episode of an evaluation.
    """

    curate: Above
    sft: Above
    grpo: Above
    episode: Above


class Sizes(StrictModel):
    """Size of the experiment: parameters of all stages, and their estimated time."""

    seconds: Costs
    preset: Preset


class Protocol(StrictModel):
    """Content of a protocol file."""

    title: str
    stopping_rule: str
    metrics: str
    seeds: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    presets: dict[str, Sizes]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        known: list[str] = []
        for arm in self.arms:
            for other in (arm.start, arm.as_long_as):
                if other is not None and other not in known:
                    raise ValueError(f"arm {arm.name!r} builds on {other!r}: not before it")
            if arm.name in known:
                raise ValueError(f"two arms are called {arm.name!r}")
            if arm.stage == "grpo" and arm.start is None:
                raise ValueError(f"arm {arm.name!r} has no model to start from")
            known.append(arm.name)
        for claim in self.claims:
            unknown = [name for name in claim.arms if name not in known]
            if unknown:
                raise ValueError(f"claim {claim.name!r} is about unknown arms: {unknown}")
        return self

    def arm(self, name: str) -> Arm:
        """Return the arm with a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def sizes(self, preset: str) -> Sizes:
        """Return the sizes of a preset.

        Raises:
            ProtocolError: No preset has this name.
        """
        if preset not in self.presets:
            raise ProtocolError(f"no preset {preset!r} in the protocol: {', '.join(self.presets)}")
        return self.presets[preset]

    def digest(self, preset: str) -> str:
        """Return the digest that the runs of a preset are recorded with, without other presets.

        Only values set in the file count, so that a new setting elsewhere does not change it.
        """
        content: dict[str, Any] = self.model_dump(
            mode="json", exclude={"presets"}, exclude_unset=True
        )
        content["sizes"] = self.sizes(preset).preset.model_dump(mode="json", exclude_unset=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_protocol(path: Path | None = None) -> Protocol:
    """Read a protocol; the packaged one by default.

    Raises:
        ProtocolError: The file is missing, is no YAML, or has an invalid field.
    """
    path = path or PACKAGED
    try:
        return Protocol.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProtocolError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        # an unknown key is reported first, since it explains a missing one
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ProtocolError(f"{path}: {place}: {first['msg']}") from error
