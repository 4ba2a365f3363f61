"""The handshake agrees with equal weights, and names the cause of each difference."""

from pathlib import Path

import pytest
import torch
from codedance.policies.inference.vllm.control import ControlError, EngineControl, on_each
from codedance.policies.inference.vllm.handshake import HandshakeError, shake_hands
from codedance.policies.models.model_folder import load_token_model, save_token_model
from codedance.policies.models.token_model import TokenModel

from ...tiny import build_tiny
from .fake_vllm import FakeVllm
from .talks import TURN, asks, policy_of

GROUPS = {
    "everything": "",
    "vision alone": "visual",
    "layers": "language_model.layers",
    "embedding and tied head": "embed_tokens",
    "last norm": "language_model.norm",
}


def changed(folder: Path, tiny_folder: Path, part: str) -> TokenModel:
    """Save the tiny model with one part changed; return it."""
    model = load_token_model(tiny_folder, device="cpu")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in model.model.named_parameters():
            if part in name:
                values += 0.2 * torch.randn(values.shape, generator=draw)
    save_token_model(model, folder)
    return model


def test_equal_weights_agree_with_and_without_the_cache(fake: FakeVllm) -> None:
    policy = policy_of(fake)
    (first,) = shake_hands(policy, fake.model, is_fresh=True).values()
    (again,) = shake_hands(policy, fake.model).values()
    assert first.cached == 0
    assert (again.cached or 0) > 0
    for one in (first, again):
        assert one.mean <= one.largest < 1e-5
        assert one.version == "default"


@pytest.mark.parametrize("name", GROUPS)
def test_new_weights_are_noticed_and_followed(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    """NeMo RL issue 4018 and TRL issue 7198: the prompt and the picture are known to the server."""
    policy, old = policy_of(fake), fake.model
    shake_hands(policy, old)
    model = changed(tmp_path / "new", tiny_folder, GROUPS[name])
    with pytest.raises(HandshakeError):
        shake_hands(policy, model)
    EngineControl(fake.url).load_weights(tmp_path / "new", "step-1")
    (found,) = shake_hands(policy, model, is_fresh=True).values()
    assert (found.version, found.cached) == ("step-1", 0)
    with pytest.raises(HandshakeError):
        shake_hands(policy, old)


def test_other_weights_are_named(fake: FakeVllm, tiny_folder: Path, tmp_path: Path) -> None:
    model = changed(tmp_path / "new", tiny_folder, "")
    with pytest.raises(HandshakeError, match="text differs as well: the server has other weights"):
        shake_hands(policy_of(fake), model)


def test_stale_prefix_cache_is_named(fake: FakeVllm, tiny_folder: Path, tmp_path: Path) -> None:
    policy = policy_of(fake)
    shake_hands(policy, fake.model)
    model = changed(tmp_path / "new", tiny_folder, "layers")
    fake.forgets = ("mm", "encoder")
    EngineControl(fake.url).load_weights(tmp_path / "new", "step-1")
    with pytest.raises(HandshakeError, match="without the prefix cache they agree"):
        shake_hands(policy, model)
    with pytest.raises(HandshakeError, match="the cache was not emptied"):
        shake_hands(policy, model, is_fresh=True)


def test_stale_picture_features_are_named(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path
) -> None:
    policy = policy_of(fake)
    shake_hands(policy, fake.model)
    model = changed(tmp_path / "new", tiny_folder, "visual")
    fake.forgets = ("prefix",)
    EngineControl(fake.url).load_weights(tmp_path / "new", "step-1")
    with pytest.raises(HandshakeError, match=r"without an image they agree: .* older weights"):
        shake_hands(policy, model)


def test_a_server_that_resizes_is_named(tiny_folder: Path) -> None:
    model = load_token_model(tiny_folder, device="cpu")
    model.pictures.processor.size = {"shortest_edge": 112 * 112, "longest_edge": 112 * 112}
    with (
        FakeVllm(model, resizes=True) as server,
        pytest.raises(HandshakeError, match="do_resize"),
    ):
        shake_hands(policy_of(server), model)


def test_another_precision_is_named(fake: FakeVllm, tiny_folder: Path, tmp_path: Path) -> None:
    model = load_token_model(tiny_folder, device="cpu")
    with torch.no_grad():
        for values in model.model.parameters():
            values.copy_(values.bfloat16().float())
    with pytest.raises(HandshakeError, match="computes in another precision"):
        shake_hands(policy_of(fake), model)
    shake_hands(policy_of(fake), model, bound=0.05)


def test_every_server_is_compared(fake: FakeVllm, tmp_path: Path) -> None:
    other = load_token_model(build_tiny(tmp_path / "other", seed=5), device="cpu")
    with FakeVllm(other) as wrong:
        policy = policy_of(fake, wrong)
        with pytest.raises(HandshakeError, match=str(wrong.port)):
            shake_hands(policy, fake.model)
        save_token_model(fake.model, tmp_path / "same")
        urls = [fake.url, wrong.url]
        done = on_each(urls, lambda one: one.load_weights(tmp_path / "same", "step-1"))
        assert done == urls
        found = shake_hands(policy, fake.model, is_fresh=True)
    assert {one.version for one in found.values()} == {"step-1"}


def test_steps_of_an_update_are_in_the_right_order(fake: FakeVllm, tmp_path: Path) -> None:
    save_token_model(fake.model, tmp_path / "new")
    EngineControl(fake.url).load_weights(tmp_path / "new", "step-1", mode="keep")
    assert fake.calls == [
        "/pause?mode=keep",
        "/server_info?config_format=json",
        "/collective_rpc",
        "/reset_prefix_cache?reset_running_requests=true",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/update_weight_version",
        "/resume",
    ]
    assert EngineControl(fake.url).version() == "step-1"


def test_failed_load_leaves_the_server_paused(fake: FakeVllm, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"/collective_rpc: HTTP 500: cannot load"):
        EngineControl(fake.url).load_weights(tmp_path / "absent", "step-1")
    assert fake.is_paused
    save_token_model(fake.model, tmp_path / "new")
    EngineControl(fake.url).load_weights(tmp_path / "new", "step-1")
    policy_of(fake).reply([asks()], sampling=TURN)


def test_server_without_control_routes_is_named(fake: FakeVllm, tmp_path: Path) -> None:
    fake.has_control = False
    with pytest.raises(ControlError, match="serve engine"):
        EngineControl(fake.url).load_weights(tmp_path, "step-1")
    fake.kill()
    with pytest.raises(ControlError, match="gave no answer"):
        EngineControl(fake.url).version()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update(prompt_logprobs=None), "expected the scores of"),
        (lambda a: a["choices"][0].update(logprobs=None), "no log-probabilities"),
        (lambda a: a["prompt_token_ids"].pop() and None, "another prompt"),
    ],
)
def test_incomplete_answer_is_an_error(fake: FakeVllm, change, words: str) -> None:
    fake.faults.change = lambda _, answer: change(answer)
    with pytest.raises(HandshakeError, match=words):
        shake_hands(policy_of(fake), fake.model)


def test_scores_of_another_distribution_than_is_sampled_from_are_refused(
    tiny_model: TokenModel,
) -> None:
    with FakeVllm(tiny_model, logprobs_mode="raw_logprobs") as raw:
        policy = policy_of(raw)
        with pytest.raises(HandshakeError, match="--logprobs-mode processed_logprobs"):
            shake_hands(policy, raw.model)
