from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codedance.envs.types import Message, Task
from codedance.policies.interface import Demonstration
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds
from codedance.policies.training.sft import SFTConfig, token_weights, train_sft
from codedance.policies.training.training_state import TrainingInterrupted
from transformers import AutoModelForImageTextToText

from ..tiny import noise

CONFIG = SFTConfig(steps=6, batch_size=4, learning_rate=5e-3, warmup_steps=1, save_every=2)


def demonstration(index: int) -> Demonstration:
    picture = noise(index, 56 + 28 * (index % 2))
    task = Task(f"t{index}", "toy", "toy", "train", "How many?", (picture,), "5")
    messages = (
        Message("user", (picture, "How many?" + " Look." * (index % 4))),
        Message("assistant", (f"<code>{index}</code>",)),
        Message("user", ("<tool_response>\n5\n<|im_end|>", noise(50 + index), "!")),
        Message("assistant", ("<answer>5</answer>",)),
    )
    return Demonstration(task, messages)


DEMONSTRATIONS = [demonstration(index) for index in range(10)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def run(start: Path, folder: Path, config: SFTConfig = CONFIG, **options):
    log: list[tuple[int, dict[str, float]]] = []
    final = train_sft(
        start,
        options.pop("demonstrations", DEMONSTRATIONS),
        config,
        folder=folder,
        on_step=lambda step, metrics: log.append((step, dict(metrics))),
        **options,
    )
    return final, log


def cut_short(start: Path, folder: Path, config: SFTConfig, seen: list[int], stop: int) -> int:
    """Train until ``stop`` steps have been seen, as with Ctrl-C; return the step reached."""
    with pytest.raises(TrainingInterrupted) as caught:
        train_sft(
            start,
            DEMONSTRATIONS,
            config,
            folder=folder,
            on_step=lambda step, _: seen.append(step),
            should_stop=lambda: len(seen) == stop,
        )
    return caught.value.step


def test_loss_falls_and_the_result_is_a_loadable_folder(tiny_folder: Path, tmp_path: Path):
    final, log = run(tiny_folder, tmp_path)
    assert final == tmp_path / "final"
    assert log[-1][1]["loss"] < log[0][1]["loss"] - 1.0
    assert [step for step, _ in log] == [1, 2, 3, 4, 5, 6]
    assert not same(final, tiny_folder)
    load_token_model(final)


def test_first_loss_is_transformers_own_on_the_assistants_tokens(tiny_folder, tmp_path):
    one = DEMONSTRATIONS[0]
    _, log = run(
        tiny_folder, tmp_path, replace(CONFIG, steps=1, batch_size=1), demonstrations=[one]
    )
    model = load_token_model(tiny_folder)
    encoded = model.chat.encode(one.messages)
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    ids = torch.tensor([encoded.ids])
    labels = ids.masked_fill(~torch.tensor([encoded.completion_mask]), -100)
    inputs = model.pictures.processor(images=list(encoded.images), return_tensors="pt")
    types = (ids == plain.config.image_token_id).int()
    expected = plain(input_ids=ids, labels=labels, mm_token_type_ids=types, **inputs).loss
    assert log[0][1]["loss"] == pytest.approx(float(expected.detach()), abs=1e-5)
    assert log[0][1]["tokens"] == sum(encoded.completion_mask)


def test_answers_have_the_configured_weight(tiny_folder: Path, tmp_path: Path):
    # Own tokens of the last turn: "<answer>" weighs 1, "5</answer>" and the turn's end 3 each;
    # the turn before has no answer.
    model = load_token_model(tiny_folder)
    one = DEMONSTRATIONS[0]
    encoded = model.chat.encode(one.messages)
    weights = token_weights(model.chat, one, encoded, answer_weight=3.0)
    first, last = len("<code>0</code>") + 1, len("<answer>")
    expected = [1.0] * (first + last) + [3.0] * (len("5</answer>") + 1)
    assert [w for w, own in zip(weights, encoded.completion_mask, strict=True) if own] == expected
    assert sum(weights) == sum(expected)
    with pytest.raises(ValueError, match="answer_weight"):
        SFTConfig(answer_weight=0.0)


def test_micro_batches_do_not_change_the_result(tiny_folder: Path, tmp_path: Path):
    whole, _ = run(tiny_folder, tmp_path / "a")
    parts, _ = run(tiny_folder, tmp_path / "b", replace(CONFIG, max_tokens_per_micro_batch=150))
    first, second = weights(whole), weights(parts)
    assert all((first[name] - second[name]).abs().max() < 1e-4 for name in first)


@pytest.mark.parametrize("muon_factor", [0.0, 0.5])
def test_stopped_run_resumes_to_the_same_weights_bit_for_bit(tiny_folder, tmp_path, muon_factor):
    config = replace(CONFIG, muon_factor=muon_factor)
    straight, log = run(tiny_folder, tmp_path / "straight", config)
    seen: list[int] = []
    for stop in (1, 3):  # at a saved step and between two of them
        assert cut_short(tiny_folder, tmp_path / "cut", config, seen, stop) == stop
    resumed, rest = run(tiny_folder, tmp_path / "cut", config)
    assert rest == log[3:]
    assert seen == [1, 2, 3]
    assert same(straight, resumed)


def test_killed_run_resumes_from_its_last_saved_step(tiny_folder: Path, tmp_path: Path):
    straight, _ = run(tiny_folder, tmp_path / "straight")

    class Killed(BaseException):
        pass

    def die(step: int, _: object) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train_sft(tiny_folder, DEMONSTRATIONS, CONFIG, folder=tmp_path / "cut", on_step=die)
    resumed, log = run(tiny_folder, tmp_path / "cut")
    assert [step for step, _ in log] == [5, 6]
    assert same(straight, resumed)


def test_finished_run_is_not_repeated(tiny_folder: Path, tmp_path: Path):
    run(tiny_folder, tmp_path)
    _, log = run(tiny_folder, tmp_path)
    assert log == []


def test_state_of_other_settings_is_rejected(tiny_folder: Path, tmp_path: Path):
    run(tiny_folder, tmp_path)
    with pytest.raises(ValueError, match="another run"):
        run(tiny_folder, tmp_path, replace(CONFIG, learning_rate=1e-4))
    with pytest.raises(ValueError, match="another run"):
        run(tiny_folder, tmp_path, demonstrations=DEMONSTRATIONS[1:])


def test_an_empty_data_set_is_rejected(tiny_folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="at least one demonstration"):
        run(tiny_folder, tmp_path, demonstrations=[])
    mute = replace(DEMONSTRATIONS[0], messages=DEMONSTRATIONS[0].messages[:1])
    with pytest.raises(ValueError, match="no assistant message"):
        run(tiny_folder, tmp_path, demonstrations=[mute])
    with pytest.raises(ValueError, match=r"sft\.max_length"):
        run(tiny_folder, tmp_path, replace(CONFIG, max_length=20))


def test_a_stopped_run_grouped_by_length_resumes_to_the_same_result(
    tiny_folder: Path, tmp_path: Path
):
    config = replace(CONFIG, group_by_length=True)
    straight, log = run(tiny_folder, tmp_path / "straight", config)
    assert log[-1][1]["loss"] < log[0][1]["loss"]
    cut_short(tiny_folder, tmp_path / "cut", config, [], 3)
    resumed, rest = run(tiny_folder, tmp_path / "cut", config)
    assert rest == log[3:]
    assert same(straight, resumed)


def test_packing_trains_equally_on_rows_without_padding(tiny_folder: Path, tmp_path: Path):
    padded, log = run(tiny_folder, tmp_path / "padded")
    config = replace(CONFIG, packing=True, max_tokens_per_micro_batch=300)
    packed, again = run(tiny_folder, tmp_path / "packed", config)
    for (_, one), (_, other) in zip(log, again, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert other["tokens"] == one["tokens"]
    first, second = weights(padded), weights(packed)
    assert all((first[name] - second[name]).abs().max() < 1e-4 for name in first)


def test_packed_demonstrations_do_not_attend_to_each_other(tiny_folder: Path):
    model = load_token_model(tiny_folder)
    encoded = [model.chat.encode(one.messages) for one in DEMONSTRATIONS[:3]]
    sequences = [PicturedIds(item.ids, item.images) for item in encoded]
    row, mask = model.pack(sequences)
    assert row.ids.shape == (1, sum(len(item.ids) for item in encoded))
    with torch.no_grad():
        together = model.hidden(row, mask=mask)[0]
        alone = [model.hidden(model.pad([one]))[0] for one in sequences]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
