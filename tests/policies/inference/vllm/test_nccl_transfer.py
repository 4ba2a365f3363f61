"""Weights go over a group to all servers in the order that vLLM documents; the group is a fake."""

import base64

import pytest
import torch
from codedance.policies.inference.vllm.control import ControlError
from codedance.policies.inference.vllm.handshake import HandshakeError, shake_hands
from codedance.policies.inference.vllm.nccl_transfer import NcclTransfer
from codedance.policies.models.token_model import TokenModel
from torch import Tensor

from .fake_vllm import FakeVllm
from .talks import policy_of

ID = bytes(range(128))


class FakeGroup:
    """Puts what is broadcast into the inbox of each server."""

    def __init__(self, size: int, unique_id: bytes, fakes: list[FakeVllm]) -> None:
        assert (size, unique_id) == (1 + 2 * len(fakes), ID)
        self.fakes = fakes
        self.sent = 0

    def broadcast(self, values: Tensor) -> None:
        self.sent += 1
        for fake in self.fakes:
            fake.engine.inbox.put(values.clone())


def transfer_to(*fakes: FakeVllm) -> tuple[NcclTransfer, list[FakeGroup]]:
    groups: list[FakeGroup] = []

    def join(size: int, unique_id: bytes) -> FakeGroup:
        groups.append(FakeGroup(size, unique_id, list(fakes)))
        return groups[-1]

    urls = [one.url for one in fakes]
    return NcclTransfer(urls, join=join, unique_id=lambda: ID), groups


def changed(model: TokenModel) -> dict[str, Tensor]:
    with torch.no_grad():
        for values in model.model.parameters():
            values += 0.1
    return dict(model.model.state_dict())


def test_servers_have_the_weights_that_were_sent(fake: FakeVllm, other: FakeVllm) -> None:
    policy, (transfer, groups) = policy_of(fake, other), transfer_to(fake, other)
    model = fake.model
    shake_hands(policy, model)
    weights = changed(model)
    with pytest.raises(HandshakeError):
        shake_hands(policy, model)
    transfer.send(weights, "step-1")
    found = shake_hands(policy, model, is_fresh=True)
    assert {one.version for one in found.values()} == {"step-1"}
    transfer.send(changed(model), "step-2", mode="keep")
    shake_hands(policy, model, is_fresh=True)
    assert [one.sent for one in groups] == [2 * len(weights)]  # joined once


def test_order_and_ranks_are_those_of_the_interface(fake: FakeVllm, other: FakeVllm) -> None:
    transfer, _ = transfer_to(fake, other)
    transfer.send(dict(fake.model.model.state_dict()), "step-1")
    assert fake.calls == [
        "/get_world_size",
        "/init_weight_transfer_engine",
        "/pause?mode=wait",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/reset_prefix_cache?reset_running_requests=true",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/resume",
    ]
    for server, offset in ((fake, 1), (other, 3)):
        (info,) = server.joined
        assert info["rank_offset"] == offset
        assert info["world_size"] == 5
        assert info["packed"] is False
        assert base64.b64decode(info["nccl_unique_id_b64"], validate=True) == ID


def test_failed_update_leaves_servers_paused_and_joins_anew(
    fake: FakeVllm, other: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer, groups = transfer_to(fake, other)
    weights = dict(fake.model.model.state_dict())
    transfer.send(weights, "step-1")

    def break_off(_: object) -> None:
        raise ValueError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(other.engine, "receive", break_off)
        with pytest.raises(ControlError, match="out of memory"):
            transfer.send(weights, "step-2")
    assert fake.is_paused
    assert other.is_paused
    fake.engine.inbox.put(None)  # it waits for the rest, until its group is gone
    transfer.send(weights, "step-3")
    assert len(groups) == 2
    assert not fake.is_paused


def test_server_without_weight_transfer_is_named(fake: FakeVllm) -> None:
    fake.has_control = False
    transfer, _ = transfer_to(fake)
    with pytest.raises(ControlError, match="serve engine"):
        transfer.send({}, "step-1")
