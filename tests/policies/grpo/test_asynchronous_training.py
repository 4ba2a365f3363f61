"""Training that does not wait: generation ahead of updates, bounded staleness, the same tasks."""

import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs import register_reward_term
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.types import Action
from codedance.policies.inference.reply_stream import VisionLanguageStream
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.interface import PolicyUnavailableError
from codedance.policies.training.grpo.asynchronous.background_engine import BackgroundEngine
from codedance.policies.training.grpo.asynchronous.groups_ahead import StaleWeightsError
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import score
from codedance.policies.training.grpo.task_order.task_draws import TaskDraws
from codedance.policies.training.training_state import TrainingInterrupted
from codedance.sandbox.types import Sandbox

from ..inference.vllm.fake_vllm import FakeVllm
from ..players import AbsentSandbox, letters, task
from .runs import Run

pytestmark = pytest.mark.usefixtures("letters")
TASKS = [replace(task(index), question=f"Number {index}?") for index in range(11)]
STOPS = tuple("abcdefghijklmnopqrstuvwxyz .,")  # a turn ends soon, and is not cut
CONFIG = GRPOConfig(
    steps=4,
    tasks_per_step=2,
    num_generations=3,
    learning_rate=1e-3,
    max_new_tokens=48,
    max_turns=2,
    max_redraws=0,
    max_staleness=1,
    stop=STOPS,
    save_every=1,
    reward="outcome",
)
PATIENT = VllmSettings(patience_seconds=60.0)
SECONDS = 60.0  # longest time that a test waits for what has to come


def run_of(start: Path, folder: Path, sandbox: Sandbox, *fakes: FakeVllm) -> Run:
    return Run(start, folder, sandbox, TASKS, CONFIG).over(PATIENT, *fakes)


def is_rollout(body: dict[str, Any]) -> bool:
    return body["sampling_params"]["max_tokens"] > 1  # else the handshake's


class Requests:
    """Tells apart what a fake was asked for: which step of `CONFIG`, and which turn."""

    def __init__(self, fake: FakeVllm) -> None:
        self.fake = fake
        draws = TaskDraws(TASKS, CONFIG)
        places = [draws.next_place() for _ in range(CONFIG.steps * CONFIG.tasks_per_step)]
        assert len(set(places)) == len(places)
        self.steps = {place: 1 + n // CONFIG.tasks_per_step for n, place in enumerate(places)}
        self.lengths: dict[int, int] = {}

    def place(self, body: dict[str, Any]) -> int | None:
        """Return the index of the task; None for the handshake."""
        found = re.search(r"Number (\d+)\?", self.fake.model.chat.decode(body["token_ids"]))
        return int(found[1]) if found is not None and is_rollout(body) else None

    def step(self, body: dict[str, Any]) -> int | None:
        place = self.place(body)
        return None if place is None else self.steps.get(place)

    def is_first_turn(self, body: dict[str, Any]) -> bool:
        size = len(body["token_ids"])
        return self.lengths.setdefault(self.place(body) or 0, size) == size


def test_next_replies_are_generated_while_the_trainer_is_busy(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    """The trainer stands still between replies and update until others' replies have come."""
    run, asked = run_of(tiny_folder, tmp_path / "run", sandbox, fake), Requests(fake)
    is_busy, has_come = threading.Event(), threading.Event()
    seen: list[bool] = []

    def hold(_: int, body: dict[str, Any]) -> None:
        if asked.step(body) == 2:
            assert is_busy.wait(SECONDS)

    def note(number: int, _: object) -> None:
        if asked.step(fake.bodies[number]) == 2:
            has_come.set()

    def stand_still(step: int) -> None:
        if step == 1:
            is_busy.set()
            seen.append(has_come.wait(SECONDS))

    fake.faults.before, fake.faults.change, run.at = hold, note, stand_still
    run.go()
    assert seen == [True]
    assert len(run.metrics) == CONFIG.steps
    assert all(len(some) == 6 for some in run.steps.values())


def test_replies_in_generation_go_on_with_the_new_weights(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    """Every turn of the random model counts as code, so that there is a second one."""
    block = Action("code", "print(1)")
    monkeypatch.setattr("codedance.envs.episode.parse_action", lambda *_, **__: block)
    run, asked = run_of(tiny_folder, tmp_path / "run", sandbox, fake), Requests(fake)
    first_turns, is_new = threading.Semaphore(0), threading.Event()

    def hold(_: int, body: dict[str, Any]) -> None:
        if asked.step(body) == 2 and not asked.is_first_turn(body):
            assert is_new.wait(SECONDS)

    def note(number: int, _: object) -> None:
        body = fake.bodies[number]
        if asked.step(body) == 2 and asked.is_first_turn(body):
            first_turns.release()

    def wait_for_first_turns(step: int) -> None:
        for _ in range(6 if step == 1 else 0):
            assert first_turns.acquire(timeout=SECONDS)

    def notice(path: str) -> None:
        if path.startswith("/resume") and fake.engine.version == "step-1":
            is_new.set()

    fake.faults.before, fake.faults.change, fake.faults.control = hold, note, notice
    run.at = wait_for_first_turns
    run.go()
    assert run.ages(1) == [[0, 0]] * 6
    assert run.ages(2) == [[1, 0]] * 6
    second = run.metrics[1]
    assert 0.0 < second["sampled_share/behind_1"] < 1.0
    assert second["sampling_logp_difference/behind_0/max"] < 1e-4  # the weights have followed
    assert second["sampling_logp_difference/behind_1/max"] > 1e-3  # and had moved
    assert "/pause?mode=keep" in fake.calls
    assert "/pause?mode=wait" not in fake.calls


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [0, 4])
def test_no_reply_is_older_than_allowed(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, adapters: int
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    run.go(replace(CONFIG, max_staleness=2, lora_r=adapters))
    ages = {age for step in run.steps for some in run.ages(step) for age in some}
    assert ages <= {0, 1, 2}
    assert 2 in ages  # the third step's first replies are requested at the start
    assert all(one["groups_dropped"] == 0.0 for one in run.metrics)
    names = {body.get("model") for body in fake.bodies}
    assert len(names) == (CONFIG.steps if adapters else 1)
    assert fake.calls.count("/v1/unload_lora_adapter") == (CONFIG.steps if adapters else 0)
    assert list(run.handed.iterdir()) == []
    assert not any(one.name.startswith(("stream", "evidence")) for one in threading.enumerate())


@pytest.mark.slow
@pytest.mark.parametrize("spans", [["step-0"], ["step-2", "step-0"], ["default"], []])
def test_stale_group_is_dropped_and_its_task_played_again(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, spans: list[str]
) -> None:
    """The third step learns from weights of the first update or the second."""
    plain = run_of(tiny_folder, tmp_path / "plain", sandbox, fake)
    plain.go()
    run, asked = run_of(tiny_folder, tmp_path / "run", sandbox, fake), Requests(fake)
    fake.bodies.clear()
    relabelled: list[int] = []
    is_first = threading.Lock()  # replies come in several threads

    def relabel(number: int, answer: dict[str, Any]) -> None:
        if asked.step(fake.bodies[number]) == 3 and is_first.acquire(blocking=False):
            (choice,) = answer["choices"]
            relabelled.append(asked.place(fake.bodies[number]) or 0)
            count = len(choice["token_ids"])
            cuts = [0, *([1] if len(spans) == 2 and count > 1 else []), count]
            names = spans[-(len(cuts) - 1) :] if spans else []
            choice["weight_versions"] = [
                {"version": name, "start": start, "end": end}
                for name, start, end in zip(names, cuts, cuts[1:], strict=False)
            ] or None

    fake.faults.change = relabel
    run.go()
    assert run.drawn() == plain.drawn()
    assert [one["groups_dropped"] for one in run.metrics] == [0.0, 0.0, 1.0, 0.0]
    again = [one for one in fake.bodies if asked.place(one) == relabelled[0]]
    assert len({one["sampling_params"]["seed"] for one in again}) == 6
    assert all(0 <= age <= 1 for some in run.ages(3) for age in some)


@pytest.mark.slow
def test_servers_that_never_follow_end_the_training(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run, asked = run_of(tiny_folder, tmp_path / "run", sandbox, fake), Requests(fake)

    def relabel(number: int, answer: dict[str, Any]) -> None:
        if asked.step(fake.bodies[number]) == 3:
            (choice,) = answer["choices"]
            choice["weight_versions"][0]["version"] = "step-0"

    fake.faults.change = relabel
    with pytest.raises(StaleWeightsError, match=r"'step-0' 4 times in a row.*max_staleness"):
        run.go()
    assert len(run.metrics) == 2
    fake.faults.change = lambda _, __: None
    run.go()
    assert sorted(run.steps) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("save_every", "curriculum"),
    [
        (2, "none"),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in ((1, "none"), (2, "learnability"))),
    ],
)
def test_training_that_died_in_a_step_goes_on_with_the_same_tasks(
    fake: FakeVllm,
    tiny_folder: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    save_every: int,
    curriculum: Any,
) -> None:
    """NeMo RL PR 3599, TRL PR 7294: prompts were skipped over restores, biased to long rollouts."""
    config = replace(CONFIG, save_every=save_every, curriculum=curriculum)
    straight = run_of(tiny_folder, tmp_path / "straight", sandbox, fake)
    straight.go(config)
    cut = run_of(tiny_folder, tmp_path / "cut", sandbox, fake)

    def die(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    cut.at = die
    with pytest.raises(KeyboardInterrupt):
        cut.go(config)
    assert len(cut.metrics) == 3
    cut.at = lambda _: None
    cut.go(config)
    assert cut.drawn() == straight.drawn()
    assert sum(straight.drawn().values(), Counter()).total() == 24


@pytest.mark.slow
def test_stopped_training_leaves_nothing_running(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    with pytest.raises(TrainingInterrupted):
        run.go(should_stop=lambda: True)
    assert not any(one.name.startswith(("stream", "evidence")) for one in threading.enumerate())
    assert list(run.handed.iterdir()) == []
    run.go()
    assert sorted(run.steps) == [1, 2, 3, 4]


@pytest.mark.slow
def test_groups_without_advantages_are_replaced_by_spare_tasks(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    """The tasks of later steps are those of a training without replacements."""
    plain = run_of(tiny_folder, tmp_path / "plain", sandbox, fake)
    plain.go()
    unregister_reward_term("letters")  # every answer is wrong
    try:
        run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
        run.go(replace(CONFIG, max_redraws=1))
    finally:
        register_reward_term("letters")(letters)
    assert [one["groups_redrawn"] for one in run.metrics] == [2.0] * 4
    for step, first in plain.drawn().items():
        assert len(run.steps[step]) == 12
        assert first <= run.drawn()[step]
    spare = [run.drawn()[step] - first for step, first in plain.drawn().items()]
    assert len(sum(spare, Counter())) == 8


@pytest.mark.slow
def test_lost_sibling_leaves_the_advantages_of_others(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    """NeMo RL PR 4029: failures that are left out of the loss still entered the baseline."""
    run, asked = run_of(tiny_folder, tmp_path / "run", sandbox, fake), Requests(fake)
    lost: list[int] = []
    is_first = threading.Lock()  # requests come in several threads

    def refuse(_: int, body: dict[str, Any]) -> tuple[int, str] | None:
        if asked.step(body) != 2 or not is_first.acquire(blocking=False):
            return None
        lost.append(asked.place(body) or 0)
        return 422, "no"

    fake.faults.status = refuse
    run.go()
    assert [one["infrastructure_share"] for one in run.metrics] == [0.0, 1 / 6, 0.0, 0.0]
    group = [one for one in run.steps[2] if one.task_id == TASKS[lost[0]].id]
    kept = [one for one in group if one.is_valid]
    assert [one.is_valid for one in group].count(False) == 1
    sandbox_of_none = AbsentSandbox()
    alone = score(kept, CONFIG, sandbox=sandbox_of_none).advantages
    beside = score(group, CONFIG, sandbox=sandbox_of_none).advantages
    assert [one for one, own in zip(beside, group, strict=True) if own.is_valid] == list(alone)


@pytest.mark.slow
def test_server_that_missed_an_update_is_given_the_weights(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    with FakeVllm(fake.model) as other:
        run = run_of(tiny_folder, tmp_path / "run", sandbox, fake, other)
        run.at = lambda step: other.kill() if step == 1 else None

        def come_back(path: str) -> None:  # the others have the new weights
            if path == "/resume" and fake.engine.version == "step-1":
                other.restart()

        fake.faults.control = come_back
        run.go()
    assert run.metrics[1]["engine/servers"] == 1.0
    assert other.engine.version == "step-3"
    assert all(one["groups_dropped"] == 0.0 for one in run.metrics)
    for step in run.steps:
        assert all(0 <= age <= 1 for some in run.ages(step) for age in some)
        assert all(one.is_valid for one in run.steps[step])


@pytest.mark.slow
def test_dead_servers_end_the_training_in_words(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    run.served = replace(run.served, settings=VllmSettings(patience_seconds=0.3, max_retries=0))  # type: ignore[type-var]
    run.at = lambda step: fake.kill() if step == 2 else None
    with pytest.raises(PolicyUnavailableError, match="gave no answer"):
        run.go()
    assert len(run.metrics) == 2


@pytest.mark.slow
def test_weights_over_nccl_do_not_wait_for_replies(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    class Group:
        def __init__(self, size: int, unique_id: bytes) -> None:
            """Join."""

        def broadcast(self, values: torch.Tensor) -> None:
            fake.engine.inbox.put(values.clone())

    module = "codedance.policies.inference.vllm.nccl_transfer"
    monkeypatch.setattr(f"{module}.NcclGroup", Group)
    monkeypatch.setattr(f"{module}._nccl_id", lambda: b"id")
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    run.served = replace(run.served, transfer="nccl")  # type: ignore[type-var]
    run.go()
    assert fake.calls.count("/pause?mode=keep") == CONFIG.steps
    assert all(0 <= age <= 1 for step in run.steps for some in run.ages(step) for age in some)
    assert run.metrics[-1]["engine/handshake_max"] < 1e-4


def test_what_cannot_run_ahead_is_refused(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    with pytest.raises(ValueError, match="max_staleness must be at least 0, got -1"):
        replace(CONFIG, max_staleness=-1)
    with pytest.raises(ValueError, match=r"deterministic needs .*max_staleness 0, got 1"):
        replace(CONFIG, deterministic=True)
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    run.served = replace(run.served, colocated=True)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="max_staleness 1 needs servers that stay awake"):
        run.go()


class Gate:
    """A sandbox that runs the blocks of some images when it is told to, and tells when it has."""

    def __init__(self, real: Sandbox, images: Sequence[bytes]) -> None:
        self.real, self.images, self.tier = real, set(images), real.tier
        self.go_on, self.is_over = threading.Event(), threading.Event()

    def session(self, images: Sequence[Any] = (), *, seed: int = 0) -> Any:
        found = self.real.session(images, seed=seed)
        gate, run, close = self, found.run, found.close
        if not any(one.tobytes() in self.images for one in images):
            return found

        class Waiting:
            def run(self, block: str) -> Any:
                assert gate.go_on.wait(SECONDS)
                return run(block)

            def close(self) -> None:
                gate.is_over.set()
                close()

        return Waiting()


def test_our_own_engine_replies_while_the_trainer_is_busy(
    tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    """Episodes of the second step end while the trainer stands still after the first one's."""
    block = Action("code", "print(1)")
    monkeypatch.setattr("codedance.envs.episode.parse_action", lambda *_, **__: block)
    draws = TaskDraws(TASKS, CONFIG)
    second = [draws.next() for _ in range(4)][2:]
    gate = Gate(sandbox, [image.tobytes() for one in second for image in one.images])
    run = run_of(tiny_folder, tmp_path / "run", gate)  # type: ignore[arg-type]
    seen: list[bool] = []

    def stand_still(step: int) -> None:
        if step == 1:
            gate.go_on.set()
            seen.append(gate.is_over.wait(SECONDS))

    run.at = stand_still
    run.go()
    assert seen == [True]
    assert all(0 <= age <= 1 for step in run.steps for some in run.ages(step) for age in some)
    assert [age for some in run.ages(2) for age in some].count(1) >= 6
    for one in run.metrics:
        assert one.get("sampling_logp_difference/behind_0/max", 0.0) < 1e-4
    assert max(one.get("sampling_logp_difference/behind_1/max", 0.0) for one in run.metrics) > 1e-3
    assert not any(one.name.startswith(("stream", "evidence")) for one in threading.enumerate())


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [0, 4])
def test_our_own_engine_has_the_weights_of_each_step(
    tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, adapters: int, monkeypatch: Any
) -> None:
    """The second turns of each step wait until its weights are there: then they are exact."""
    block = Action("code", "print(1)")
    monkeypatch.setattr("codedance.envs.episode.parse_action", lambda *_, **__: block)
    run = run_of(tiny_folder, tmp_path / "run", sandbox)
    draws = TaskDraws(TASKS, CONFIG)
    has_come = {draws.next().images[0].tobytes(): threading.Event() for _ in range(CONFIG.steps)}
    follow = BackgroundEngine.follow

    def release(engine: BackgroundEngine, step: int) -> None:
        follow(engine, step)
        [*has_come.values()][step].set()

    class Held:
        tier = sandbox.tier

        def session(self, images: Sequence[Any] = (), *, seed: int = 0) -> Any:
            found = sandbox.session(images, seed=seed)
            run_block, newest = found.run, has_come[images[0].tobytes()]

            class Waiting:
                def run(self, block: str) -> Any:
                    assert newest.wait(SECONDS)
                    return run_block(block)

                close = found.close

            return Waiting()

    monkeypatch.setattr(BackgroundEngine, "follow", release)
    run.sandbox = Held()  # type: ignore[assignment]
    run.go(replace(CONFIG, lora_r=adapters, max_staleness=2, tasks_per_step=1, num_generations=6))
    assert [run.ages(step) for step in run.steps] == [
        [[0, 0]] * 6,
        [[1, 0]] * 6,
        [[2, 0]] * 6,
        [[2, 0]] * 6,
    ]
    for one in run.metrics:
        assert one.get("sampling_logp_difference/behind_0/max", 0.0) < 1e-4
    cut = run_of(tiny_folder, tmp_path / "cut", sandbox)
    with pytest.raises(TrainingInterrupted):
        cut.go(should_stop=lambda: True)
    cut.go()
    assert sorted(cut.steps) == [1, 2, 3, 4]


def test_error_of_our_own_engine_ends_the_training(
    tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox)

    def fail(*_: object) -> None:
        raise MemoryError("no memory for keys and values")

    def break_down(step: int) -> None:
        if step == 1:
            monkeypatch.setattr(VisionLanguageStream, "join", fail)

    run.at = break_down
    with pytest.raises((MemoryError, RuntimeError), match=r"no memory|engine .* has ended"):
        run.go(replace(CONFIG, steps=6))
    assert len(run.metrics) < 6
    assert not any(one.name.startswith(("stream", "evidence")) for one in threading.enumerate())
