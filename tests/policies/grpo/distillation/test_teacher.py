"""A teacher in this process scores exactly the own ids, under the student's distribution."""

import pytest
import torch
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.batches import pad_flags
from codedance.policies.training.grpo.distillation.shared_tokens import TeacherMismatchError
from codedance.policies.training.grpo.distillation.teacher import LocalTeacher, OwnIds

from ...tiny import noise


def by_hand(model: TokenModel, one: OwnIds, temperature: float) -> torch.Tensor:
    batch = model.pad([one.source])
    own = pad_flags([one.completion_mask], length=batch.ids.shape[1])
    with torch.no_grad():
        return model.log_probabilities(batch, own, temperature=temperature)


@pytest.mark.parametrize(("temperature", "max_tokens"), [(1.0, 4096), (0.7, 1)])
def test_own_ids_are_scored_in_order_whatever_the_batches(
    teacher_model, trajectories, temperature, max_tokens
):
    teacher = LocalTeacher(
        teacher_model, name="big", temperature=temperature, max_tokens=max_tokens
    )
    found = teacher.score(trajectories)
    assert [len(one.values) for one in found] == [7, 11, 15]
    for one, scored in zip(trajectories, found, strict=True):
        expected = by_hand(teacher_model, one, temperature)
        torch.testing.assert_close(scored.values, expected, atol=1e-5, rtol=0)
        assert scored.reason == ""
    assert not any(one.requires_grad for one in teacher_model.model.parameters())
    assert teacher.score([]) == []


def test_scores_that_are_not_finite_are_a_failure_and_no_number(teacher_model, trajectories):
    with torch.no_grad():
        teacher_model.model.lm_head.weight[:] = torch.nan
    teacher = LocalTeacher(teacher_model, name="big", temperature=1.0, max_tokens=4096)
    (found, *_) = teacher.score(trajectories)
    assert found.values is None
    assert "not finite" in found.reason


def test_images_of_other_sizes_are_refused(teacher_model, trajectories):
    first = trajectories[0].source
    swapped = PicturedIds(first.ids, [noise(1, 112, 112), first.images[1]])
    teacher = LocalTeacher(teacher_model, name="big", temperature=1.0, max_tokens=4096)
    with pytest.raises(TeacherMismatchError, match="teacher big gives images other numbers"):
        teacher.score([OwnIds(swapped, trajectories[0].completion_mask)])
