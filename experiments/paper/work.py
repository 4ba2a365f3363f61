"""Runs the remaining nodes of an experiment, in any number of processes; a kill costs some steps.

Each process takes the first node that is ready and that no other has claimed in the database;
``python -m experiments.claims`` may therefore be started beside a running one, on any machine that
shares its store and its folders of images and stages. A finished node is never rerun; a failed one
is reported, and nodes that do not depend on it continue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codedance.pipelines.runs.context import StageInterrupted
from codedance.pipelines.runs.progress import format_seconds
from codedance.pipelines.runs.session import RunSession
from codedance.pipelines.store.claims import Claim, ClaimLostError, claimed_work, try_claim
from codedance.pipelines.store.connection.errors import StoreError
from codedance.policies.rollouts.losses import EpisodesLostError

from .costs import remaining_seconds
from .nodes import Setting, run_node
from .plan import Node
from .protocol import Protocol
from .records import MARK, Records, is_done, read_records

WAIT_SECONDS = 2.0
Place = tuple[int, Node]


class ClaimsError(RuntimeError):
    """Nodes of the experiment failed; the message says which and why."""


@dataclass(slots=True)
class Experiment:
    """The work of an experiment.

    Attributes:
        session: Session with store and home folder.
        protocol: Protocol of the experiment.
        preset: Name of the protocol's preset.
        seeds: Seeds, in order.
        nodes: Nodes of each seed, in order.
        jobs: Number of processes, to estimate the remaining time.
    """

    session: RunSession
    protocol: Protocol
    preset: str
    seeds: Sequence[int]
    nodes: Sequence[Node]
    jobs: int = 1
    _failures: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])

    @property
    def digest(self) -> str:
        """Digest that its runs are recorded with."""
        return self.protocol.digest(self.preset)

    @property
    def folder(self) -> Path:
        """Folder for untrained models and logs."""
        return self.session.home.root / "claims" / self.digest[:12]

    def records(self) -> Records:
        """Return the runs begun so far, by any process."""
        return read_records(self.session.store, preset=self.preset, digest=self.digest)

    def places(self) -> Iterator[Place]:
        """Return all nodes in order: a complete first seed before the second."""
        return ((seed, node) for seed in self.seeds for node in self.nodes)

    def work(self, *, after_seed: Callable[[], object]) -> None:
        """Run all remaining nodes.

        Args:
            after_seed: Called when this process finished the last node of a seed.

        Raises:
            ClaimsError: Some nodes failed; the rest is finished.
            StageInterrupted: The user requested a stop.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        while (left := self._left()) and not self._is_stuck(left):
            self.session.stop.check()
            seed = self._do_one(left)
            if seed is None:
                time.sleep(WAIT_SECONDS)
            elif all(other != seed for other, _ in self._left()):
                after_seed()
        if self._failures:
            lines = (f"seed {s}, {name}: {why}" for (s, name), why in self._failures.items())
            raise ClaimsError("some nodes failed; " + "; ".join(lines))

    def _left(self) -> list[Place]:
        records = self.records()
        return [(s, node) for s, node in self.places() if not is_done(records.get((s, node.name)))]

    def _is_stuck(self, left: Sequence[Place]) -> bool:
        """Whether all remaining nodes failed, or depend on a failed one."""
        lost = set(self._failures)
        for seed, node in left:  # in order: the dependencies of a node come before it
            if any((seed, name) in lost for name in node.needs):
                lost.add((seed, node.name))
        return all((seed, node.name) in lost for seed, node in left)

    def _do_one(self, left: Sequence[Place]) -> int | None:
        """Run the first node that is ready and not claimed; return its seed, None without one."""
        waiting = {(seed, node.name) for seed, node in left}
        for seed, node in left:
            is_ready = not any((seed, name) in waiting for name in node.needs)
            if not is_ready or (seed, node.name) in self._failures:
                continue
            work = claimed_work(MARK, f"{self.digest} seed {seed} {node.name}")
            claim = try_claim(self.session.store.database, work)
            if isinstance(claim, Claim) and self._do(claim, seed, node, left):
                return seed
        return None

    def _do(self, claim: Claim, seed: int, node: Node, left: Sequence[Place]) -> bool:
        """Run a claimed node; return False where another process has finished or taken it."""
        try:
            with self.session.holding(claim):
                records = self.records()
                if is_done(records.get((seed, node.name))):
                    return False
                self._announce(seed, node, left, records)
                sizes = self.protocol.sizes(self.preset)
                setting = Setting(self.preset, sizes.preset, self.digest, self.folder, records)
                made = run_node(self.session, setting, seed, node)
                if made.lost:
                    raise EpisodesLostError(
                        f"{made.lost} episodes lost; the same command reruns them"
                    )
        except ClaimLostError as lost:
            self.session.progress.say(f"seed {seed}: {lost}")
            return False
        except (StageInterrupted, StoreError):
            raise
        except Exception as error:  # noqa: BLE001 - one arm's failure must not cost the others
            self._failures[seed, node.name] = f"{type(error).__name__}: {error}"
            self.session.progress.say(f"seed {seed}: {node.name} failed: {error}")
        return True

    def _announce(self, seed: int, node: Node, left: Sequence[Place], records: Records) -> None:
        done = sum(1 for _ in self.places()) - len(left)
        self.session.progress.say(
            f"== {done + 1}/{done + len(left)}, seed {seed}: {node.name} "
            f"({self._times(records, left)})"
        )

    def _times(self, records: Records, left: Sequence[Place]) -> str:
        sizes = self.protocol.sizes(self.preset)
        seconds = remaining_seconds(sizes, left, records) / self.jobs
        worked = sum(run.seconds for run in records.values())
        return f"{format_seconds(worked)} worked so far, about {format_seconds(seconds)} left"
