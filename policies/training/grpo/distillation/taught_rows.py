"""Rows of an update with the scores of a teacher: divided over the processes, losses counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ....interface import PolicyUnavailableError
from ....models.model_folder import load_prompt_encoder
from ...distributed.processes import World, balance
from ...trained_model import TrainedModel
from ..config import GRPOConfig
from ..update import Row
from .served_teacher import ServedTeacher, TeacherServers
from .settings import check_teacher_servers
from .shared_tokens import check_shared_tokens
from .teacher import LocalTeacher, OwnIds, Teacher


class TeacherLostError(PolicyUnavailableError):
    """The teacher scored no trajectory of a step: it is away, or refuses them all."""


def make_teacher(
    config: GRPOConfig, trained: TrainedModel, servers: TeacherServers | None = None
) -> Teacher | None:
    """Return the teacher of a training, after checking that it reads the same ids; None for none.

    In a distributed launch all processes have to call this; each has a teacher of its own.

    Args:
        config: Settings.
        trained: Trained model.
        servers: Servers that have the teacher's weights; None to load them in this process.

    Raises:
        ModelFolderError: The teacher cannot be loaded.
        TeacherMismatchError: It reads other ids than the trained model.
        PolicyUnavailableError: None of its servers can be used.
        ValueError: There are servers and no teacher, or the temperature is not 1 for them.
    """
    name = config.teacher
    if name is None:
        check_teacher_servers(() if servers is None else servers.urls, name, config.temperature)
        return None
    encoder = load_prompt_encoder(name)
    check_shared_tokens(trained.model.encoder, encoder, name=name)
    if servers is None:
        limit = config.max_tokens_per_micro_batch
        return LocalTeacher.of_folder(name, temperature=config.temperature, max_tokens=limit)
    served = ServedTeacher(encoder, servers, name=name, temperature=config.temperature)
    trained.world.gather(served.check)
    return served


def taught_rows(
    rows: Sequence[Row], teacher: Teacher, *, world: World, keeps_all: bool = False
) -> tuple[list[Row], dict[str, float]]:
    """Let a teacher score the rows of an update.

    Each process lets its teacher score a share of the rows; all of them get all scores. A row that
    the teacher failed to score has no distillation term; it is left out if its advantages are 0.

    Args:
        rows: Rows, equal in all processes.
        teacher: Teacher of this process.
        world: Processes of the launch.
        keeps_all: Whether rows without any advantage are kept, as for a KL term.

    Returns:
        Rows, and the metric ``distillation/lost``, the number of rows without scores.

    Raises:
        TeacherLostError: No row was scored.
    """
    shares = balance([len(row.completion_mask) for row in rows], parts=world.size)
    asked = [OwnIds(rows[i].source, rows[i].completion_mask) for i in shares[world.rank]]
    parts = world.gather(lambda: teacher.score(asked))
    pairs = zip(itertools.chain(*shares), itertools.chain(*parts), strict=True)
    scored = [one for _, one in sorted(pairs, key=lambda pair: pair[0])]
    reasons = [one.reason for one in scored if one.values is None]
    if reasons and len(reasons) == len(rows):
        common = Counter(reasons).most_common(1)[0][0]
        raise TeacherLostError(
            f"the teacher scored none of the {len(rows)} trajectories of this step: {common}"
        )
    taught = [replace(row, teacher=one.values) for row, one in zip(rows, scored, strict=True)]
    kept = [
        row for row in taught if keeps_all or row.teacher is not None or bool(row.advantages.any())
    ]
    return kept, {"distillation/lost": float(len(reasons))}
