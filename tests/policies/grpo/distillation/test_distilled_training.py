"""Training with a teacher: what a row learns, what is lost, and runs from start to end."""

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Trajectory
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.distributed.processes import World
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.distillation.served_teacher import TeacherServers
from codedance.policies.training.grpo.distillation.shared_tokens import TeacherMismatchError
from codedance.policies.training.grpo.distillation.taught_rows import TeacherLostError, taught_rows
from codedance.policies.training.grpo.distillation.teacher import LocalTeacher, Scored
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.grpo.update import Row, backward, make_rows
from codedance.policies.training.training_state import TrainingInterrupted
from codedance.sandbox.types import Sandbox
from transformers import AutoModelForImageTextToText

from ...inference.vllm.fake_vllm import FakeVllm
from ...players import task
from ...tiny import build_tiny

TASKS = [task(index) for index in range(7)]
CONFIG = GRPOConfig(
    steps=3,
    tasks_per_step=2,
    num_generations=3,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=1,
    save_every=1,
    reward="outcome",
)
PURE = {"distillation_weight": 1.0, "reward_weight": 0.0}


class KnownTeacher:
    """Gives each trajectory's tokens scores that lie a constant away from those drawn."""

    def __init__(self, *apart: float | None) -> None:
        self.apart = apart
        self.rows: list[Row] = []

    def score(self, trajectories: Any) -> list[Scored]:
        return [
            Scored(None, f"reason {number}") if by is None else Scored(row.drawn + by)
            for number, (row, by) in enumerate(zip(self.rows, self.apart, strict=True))
        ]


def taught(
    sampled: list[Trajectory],
    advantages: tuple[float, ...],
    teacher: KnownTeacher,
    config: GRPOConfig,
) -> tuple[list[Row], dict[str, float]]:
    group = Group(tuple(sampled), advantages, tuple((0.0,) for _ in sampled))
    teacher.rows = make_rows([group], config)
    return taught_rows(teacher.rows, teacher, world=World())


def gradient(model: TokenModel) -> torch.Tensor:
    parts = [p.grad.flatten() for p in model.model.parameters() if p.grad is not None]
    model.model.zero_grad()
    return torch.cat(parts)


def test_term_is_added_to_the_weighted_advantages_and_a_lost_one_is_masked(tiny_model, sampled):
    """Rewards count half: 0.5, -0.5 and 0; the teacher adds 2 · 0.25 and 2 · -1, and once nothing.

    The loss is -mean(A) over 9 tokens: -(2 · (0.5 + 0.5) + 3 · -0.5 + 4 · (0 - 2)) / 9.
    """
    config = replace(CONFIG, teacher="big", distillation_weight=2.0, reward_weight=0.5)
    teacher = KnownTeacher(0.25, None, -1.0)
    rows, metrics = taught(sampled, (1.0, -1.0, 0.0), teacher, config)
    assert metrics == {"distillation/lost": 1.0}
    assert [row.teacher is None for row in rows] == [False, True, False]
    figures = backward(tiny_model, rows, config, reference=None)
    assert figures.loss == pytest.approx(-(2.0 - 1.5 - 8.0) / 9, abs=1e-4)
    # log π - log π_T: -0.25 twice and 1 four times; those of the lost one do not count.
    kl = figures.divergence.metrics()["distillation/kl"]
    assert (kl, figures.divergence.tokens) == (pytest.approx(3.5 / 6, abs=1e-5), 6)
    found = gradient(tiny_model)
    loss = torch.zeros(())
    for one, advantage in zip(sampled, (1.0, -0.5, -2.0), strict=True):
        assert one.tokens is not None
        batch = tiny_model.pad([PicturedIds(one.tokens.ids, one.opening[0].images)])
        own = torch.tensor([one.tokens.mask])
        scores = tiny_model.log_probabilities(batch, own, temperature=1.0)
        loss = loss - advantage * scores.sum() / 9
    loss.backward()
    expected = gradient(tiny_model)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_divergence_is_measured_from_the_trainer_not_from_the_engine(tiny_model, sampled):
    """What the engine thought changes the importance weight alone."""
    config = replace(CONFIG, teacher="big", **PURE)
    teacher = KnownTeacher(0.5)
    rows, _ = taught(sampled[:1], (0.0,), teacher, config)
    doubted = [replace(row, drawn=row.drawn - math.log(2.0)) for row in rows]
    plain, weighted = (backward(tiny_model, one, config, reference=None) for one in (rows, doubted))
    assert plain.divergence.total == pytest.approx(weighted.divergence.total, abs=1e-5)
    assert weighted.loss == pytest.approx(2.0 * plain.loss, abs=1e-4)


def test_micro_batches_add_up_to_the_whole_batch(tiny_model, sampled):
    config = replace(CONFIG, teacher="big", **PURE)
    rows, _ = taught(sampled, (0.0, 0.0, 0.0), KnownTeacher(0.5, None, -1.0), config)
    whole = backward(tiny_model, rows, config, reference=None)
    first = gradient(tiny_model)
    small = replace(config, max_tokens_per_micro_batch=1)
    parts = backward(tiny_model, rows, small, reference=None)
    assert parts.divergence.tokens == whole.divergence.tokens == 6
    assert parts.divergence.total == pytest.approx(whole.divergence.total, abs=1e-4)
    torch.testing.assert_close(gradient(tiny_model), first, atol=1e-5, rtol=1e-4)


def test_rows_without_any_signal_are_left_out_but_count_in_the_weights(sampled):
    config = replace(CONFIG, teacher="big", **PURE)
    rows, metrics = taught(sampled, (1.0, -1.0, 0.0), KnownTeacher(0.5, None, None), config)
    (row,) = rows
    assert (row.weight, metrics["distillation/lost"]) == (1 / 9, 2.0)


def test_step_without_any_score_is_an_error_with_the_reason(sampled):
    config = replace(CONFIG, teacher="big", distillation_weight=1.0)
    with pytest.raises(TeacherLostError, match=r"none of the 2 trajectories.*reason 0"):
        taught(sampled[:2], (1.0, -1.0), KnownTeacher(None, None), config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distillation_weight": 1.0}, "distillation_weight 1 needs a grpo.teacher"),
        ({"teacher": "big"}, "teacher big would have no effect"),
        ({"reward_weight": 0.0}, "leaves nothing to learn from"),
        ({"teacher": "big", "distillation_weight": -1.0}, "must be at least 0, got -1"),
        ({"teacher": "openai:big", "distillation_weight": 1.0}, "a hub id or nano, got openai:big"),
        ({"teacher": "oracle", "distillation_weight": 1.0}, "a hub id or nano, got oracle"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        GRPOConfig(**change)


class Run:
    """One training, and what it reported."""

    def __init__(self, start: Path, folder: Path, sandbox: Sandbox) -> None:
        self.start, self.folder, self.sandbox = start, folder, sandbox
        self.metrics: list[dict[str, float]] = []

    def go(self, config: GRPOConfig, **options: Any) -> Path:
        return train_grpo(
            self.start,
            TASKS,
            config,
            sandbox=self.sandbox,
            folder=self.folder,
            on_step=lambda _, metrics: self.metrics.append(dict(metrics)),
            **options,
        )

    def of(self, name: str) -> list[float]:
        return [one[name] for one in self.metrics]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def servers_of(*fakes: FakeVllm, **settings: Any) -> TeacherServers:
    quick = VllmSettings(**{"max_retries": 0, "patience_seconds": 0.3, **settings})
    return TeacherServers(tuple(one.url for one in fakes), quick)


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [0, 4])
def test_student_comes_closer_to_its_teacher_without_any_reward(
    tiny_folder, teacher_folder, tmp_path, sandbox, adapters
):
    config = replace(
        CONFIG,
        steps=10,
        num_generations=16,
        max_new_tokens=4,
        max_turns=1,
        learning_rate=2e-2 if adapters else 1e-2,
        lora_r=adapters,
        teacher=str(teacher_folder),
        **PURE,
    )
    run = Run(tiny_folder, tmp_path, sandbox)
    run.go(config)
    divergence = run.of("distillation/kl")
    assert sum(divergence[-3:]) < 0.8 * sum(divergence[:3])


@pytest.mark.parametrize("staleness", [0, 1])
def test_groups_of_equals_are_kept_and_learnt_from(
    tiny_folder, teacher_folder, tmp_path, sandbox, staleness
):
    """A random model has no right answers: every group is flat."""
    run = Run(tiny_folder, tmp_path, sandbox)
    change = {"steps": 1, "max_staleness": staleness}
    final = run.go(replace(CONFIG, teacher=str(teacher_folder), **change, **PURE))
    (found,) = run.metrics
    assert found["frac_reward_zero_std"] == 1.0
    assert (found["groups_redrawn"], found["groups"]) == (0.0, 2.0)
    assert (found["rows"], found["distillation/lost"]) == (6.0, 0.0)
    assert 0.1 < found["distillation/kl"] < 10.0
    before, after = weights_of(tiny_folder), weights_of(final)
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_student_that_is_its_own_teacher_has_nothing_to_learn(tiny_folder, tmp_path, sandbox):
    run = Run(tiny_folder, tmp_path, sandbox)
    config = replace(CONFIG, steps=1, teacher=str(tiny_folder), temperature=0.8, **PURE)
    run.go(config)
    (found,) = run.metrics
    assert found["distillation/kl"] == pytest.approx(0.0, abs=1e-5)
    assert found["grad_norm"] < 1e-3


@pytest.mark.slow
def test_served_teacher_trains_like_a_local_one(
    tiny_folder, teacher_folder, tmp_path, sandbox, fake, monkeypatch
):
    """The local one is made to score under its own distribution, as a server does."""
    raw: Any = {"name": "big", "temperature": None, "max_tokens": 4096}
    load = classmethod(lambda cls, source, **_: cls(load_token_model(source), **raw))
    monkeypatch.setattr(LocalTeacher, "of_folder", load)
    config = replace(CONFIG, steps=2, teacher=str(teacher_folder), **PURE)
    local, served = (Run(tiny_folder, tmp_path / name, sandbox) for name in ("local", "served"))
    first = weights_of(local.go(config))
    second = weights_of(served.go(config, teacher_servers=servers_of(fake)))
    for name in ("distillation/kl", "loss", "distillation/lost"):
        assert served.of(name) == pytest.approx(local.of(name), abs=1e-4)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, atol=1e-4, rtol=1e-3)
    before = weights_of(tiny_folder)
    assert any(not torch.equal(first[name], before[name]) for name in first)


def test_lost_scores_are_counted_and_the_others_are_learnt_from(
    tiny_folder, teacher_folder, tmp_path, sandbox, fake
):
    fake.faults.status = lambda number, _: (400, "no") if number % 3 == 1 else None
    run = Run(tiny_folder, tmp_path, sandbox)
    config = replace(CONFIG, steps=2, teacher=str(teacher_folder), **PURE)
    run.go(config, teacher_servers=servers_of(fake))
    assert run.of("distillation/lost") == [2.0, 2.0]
    assert run.of("rows") == [4.0, 4.0]


@pytest.mark.slow
def test_run_whose_teacher_went_away_fails_in_words_and_goes_on_when_it_is_back(
    tiny_folder, teacher_folder, tmp_path, sandbox, fake
):
    config = replace(CONFIG, steps=2, teacher=str(teacher_folder), **PURE)
    straight, cut = (Run(tiny_folder, tmp_path / name, sandbox) for name in ("straight", "cut"))
    first = weights_of(straight.go(config, teacher_servers=servers_of(fake)))
    dies_from = len(fake.bodies) + 1 + 6  # a check, and the trajectories of the first step

    def die(number: int, _: object) -> None:
        if number >= dies_from:
            fake.kill()

    fake.faults.before = die
    fake.faults.status = lambda number, _: (500, "dying") if number >= dies_from else None
    with pytest.raises(TeacherLostError, match="scored none of the 6 trajectories"):
        cut.go(config, teacher_servers=servers_of(fake))
    assert len(cut.metrics) == 1
    fake.faults.before, fake.faults.status = lambda *_: None, lambda *_: None
    fake.restart()
    # Another address is another way to the same teacher.
    second = weights_of(cut.go(config, teacher_servers=servers_of(fake)))
    assert cut.metrics == straight.metrics
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_teacher_that_is_away_for_a_while_is_waited_for(
    tiny_folder, teacher_folder, tmp_path, sandbox, fake
):
    def die(number: int, _: object) -> None:
        if number == 3:
            fake.kill()
            back.start()

    back = threading.Timer(0.6, fake.restart)
    fake.faults.before = die
    run = Run(tiny_folder, tmp_path, sandbox)
    config = replace(CONFIG, steps=1, teacher=str(teacher_folder), **PURE)
    run.go(config, teacher_servers=servers_of(fake, patience_seconds=60.0, max_retries=3))
    back.join()
    assert run.of("distillation/lost") == [0.0]


@pytest.mark.slow
def test_state_belongs_to_one_teacher_wherever_it_runs(
    tiny_folder, teacher_folder, tmp_path, sandbox, fake
):
    config = replace(CONFIG, teacher=str(teacher_folder), **PURE)
    run = Run(tiny_folder, tmp_path / "run", sandbox)
    with pytest.raises(TrainingInterrupted):
        run.go(config, should_stop=lambda: True)
    other = build_tiny(tmp_path / "other", seed=6)
    with pytest.raises(ValueError, match="the state of another run"):
        run.go(replace(config, teacher=str(other)))
    with pytest.raises(TrainingInterrupted):
        run.go(config, teacher_servers=servers_of(fake), should_stop=lambda: True)
    assert len(run.metrics) == 2


def test_teacher_with_other_tokens_is_refused_before_anything_is_sampled(
    tiny_folder, tmp_path, sandbox
):
    from codedance.policies.loading import NANO_FOLDER

    run = Run(tiny_folder, tmp_path, sandbox)
    with pytest.raises(TeacherMismatchError, match="does not share the tokens"):
        run.go(replace(CONFIG, teacher=str(NANO_FOLDER), **PURE))
    assert run.metrics == []


def test_servers_without_a_teacher_are_refused(tiny_folder, tmp_path, sandbox, fake):
    with pytest.raises(ValueError, match=r"rollout\.teacher_urls need a grpo\.teacher"):
        Run(tiny_folder, tmp_path, sandbox).go(CONFIG, teacher_servers=servers_of(fake))
