"""The settings of flows.yaml match those of the trainers."""

from __future__ import annotations

from dataclasses import fields

import pytest
from codedance.pipelines.config.sections.sandbox_settings import (
    LimitSettings,
    SandboxSettings,
    open_configured,
)
from codedance.pipelines.config.settings import (
    CurateSettings,
    EvaluateSettings,
    GRPOSettings,
    NanoSettings,
    Preset,
    SFTSettings,
)
from codedance.policies.models.nano import NanoConfig
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.sft import SFTConfig
from codedance.sandbox import Limits
from pydantic import ValidationError


def names(model):
    return set(model.model_fields)


def test_every_training_setting_is_a_parameter_of_the_trainers():
    of_the_stage = {"base", "nano", "shown_directly", "easy_alone", "without_families"}
    assert names(SFTSettings) - of_the_stage <= {field.name for field in fields(SFTConfig)}
    assert names(GRPOSettings) - of_the_stage <= {field.name for field in fields(GRPOConfig)}
    assert names(NanoSettings) <= {field.name for field in fields(NanoConfig)}


def test_settings_build_the_trainers_configurations():
    settings = GRPOSettings(num_generations=4, reward="bat_paper")
    grpo = GRPOConfig(**settings.model_dump(exclude={"without_families"}))
    assert (grpo.num_generations, grpo.reward) == (4, "bat_paper")
    sft = SFTConfig(
        **SFTSettings(steps=7).model_dump(exclude={"base", "nano", "shown_directly", "easy_alone"})
    )
    assert sft.steps == 7


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (CurateSettings, {"easy_above": 1.5}),
        (CurateSettings, {"candidates": 0}),
        (SFTSettings, {"learning_rate": 0.0}),
        (GRPOSettings, {"num_generations": 1}),
        (GRPOSettings, {"reward": "bats"}),
        (EvaluateSettings, {"limit": -1}),
        (Preset, {"suites": "nano"}),
    ],
)
def test_unusable_settings_are_rejected(model, values):
    with pytest.raises(ValidationError):
        model(**values)


def test_settings_are_immutable():
    with pytest.raises(ValidationError):
        SFTSettings().steps = 3


def test_custom_reward_terms_are_read_from_the_file_and_unknown_ones_are_rejected(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.py").write_text("def brevity(t): return len(t.turns)\n", encoding="utf-8")
    settings = GRPOSettings(reward_terms={"terms.py:brevity": -0.01})
    assert settings.reward_terms == {"terms.py:brevity": -0.01}
    with pytest.raises(ValidationError, match="did you mean 'brevity'"):
        GRPOSettings(reward_terms={"terms.py:brevty": -0.01})


def test_the_sandbox_is_selected_in_a_preset():
    preset = Preset.model_validate(
        {
            "sandbox": {
                "backend": "docker",
                "floor": "full",
                "limits": {"wall_seconds": 3.0},
                "libraries": ["numpy"],
                "image": "ours",
            }
        }
    )
    assert (preset.sandbox.backend, preset.sandbox.floor) == ("docker", "full")
    assert preset.sandbox.limits.wall_seconds == 3.0
    assert preset.sandbox.libraries == ("numpy",)
    assert Preset().sandbox.backend == "local"


@pytest.mark.parametrize(
    "sandbox",
    [
        {"backend": "dokcer"},
        {"flor": "full"},
        {"floor": "roof"},
        {"limits": {"wall_second": 1.0}},
        {"limits": {"memory_mb": 0}},
    ],
)
def test_a_typo_in_the_sandbox_is_rejected(sandbox):
    with pytest.raises(ValidationError):
        Preset.model_validate({"sandbox": sandbox})


def test_every_limit_can_be_set_in_a_preset():
    assert set(LimitSettings.model_fields) == set(Limits.__slots__)
    assert Limits(**LimitSettings().model_dump()) == Limits()


def test_the_sandbox_of_the_settings_is_opened():
    settings = SandboxSettings(
        backend="local", libraries=(), limits=LimitSettings(output_characters=10)
    )
    with open_configured(settings) as sandbox, sandbox.session() as session:
        assert "21 characters were cut" in session.run("print('a' * 30)").stdout


def test_another_backend_keeps_the_other_settings():
    preset = Preset.model_validate({"sandbox": {"floor": "full"}, "suite": "nano"})
    assert preset.with_backend("docker").sandbox == SandboxSettings(backend="docker", floor="full")
    with pytest.raises(ValueError, match="no sandbox 'ray', only local, docker"):
        preset.with_backend("ray")


@pytest.mark.parametrize(
    "tracking",
    [
        {"also": ["tensorbord"]},
        {"also": ["wandb", "wandb"]},
        {"also": "wandb"},
        {"project": ""},
        {"project": "a/b"},
        {"api_key": "secret"},
    ],
)
def test_a_wrong_tool_or_project_is_rejected(tracking):
    with pytest.raises(ValidationError):
        Preset.model_validate({"tracking": tracking})
