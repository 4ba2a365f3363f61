"""The viewer: a static HTML page for inspecting the trajectories of a run.

`make_viewer` reads the store and writes one HTML file with the index of all trajectories and a
representative sample of them in full; the others go to files beside it. It needs no server and no
network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ...envs.types import Trajectory
from ..config.home import Home
from ..store.lineage import StageRun
from ..store.store import Store
from .advantages import sibling_advantages, turn_penalty
from .index import Index
from .page import render_viewer
from .pieces import PieceTable, TokenReader
from .plan import SHOWN_STAGES, Shown, bundles, find_contrast, list_episodes, sampled_first
from .records import Recorder, pictures_of, stand_in
from .shards import Entry, ShardWriter, check_whole, entry

INLINE = 20_000_000
"""Maximum number of characters of trajectories in the page itself."""
AT_ONCE = 240
"""Bundles read at once."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A written viewer page.

    Attributes:
        html: Path of the page.
        count: Number of trajectories on it.
        inline: Number of trajectories in the page itself; the others are in files beside it.
        megabytes: Size of the page and its files, in megabytes.
        missing: Number of images missing from the store.
    """

    html: Path
    count: int
    inline: int
    megabytes: float
    missing: int


def make_viewer(
    store: Store,
    home: Home,
    runs: Sequence[StageRun],
    folder: Path,
    *,
    stages: Sequence[str] = SHOWN_STAGES,
    inline: int = INLINE,
) -> Viewer:
    """Write the page of a run, or of two runs to compare, to ``folder``.

    Args:
        store: Store with the trajectories.
        home: Home folder with the checkpoints, whose tokenizers split the replies into tokens.
        runs: Pipeline runs, or standalone evaluations; the first is the page's main run.
        folder: Folder for ``viewer.html`` (``compare-OTHER.html`` for two runs).
        stages: Stages whose trajectories are shown.
        inline: Maximum number of characters of trajectories in the page itself.

    Raises:
        ValueError: A stage is unknown.
        StoreError: The store cannot be read.
    """
    name = "viewer" if len(runs) == 1 else f"compare-{runs[1].id}"
    folder.mkdir(parents=True, exist_ok=True)
    shown = list_episodes(store, runs, stages)
    keys = list(dict.fromkeys(one.episode.task_key for one in shown))
    index = Index(store.tasks(keys, with_images=False))
    writer = ShardWriter(store.images, folder / name, budget=inline)
    gatherer = _Gatherer(store, home, index)
    found = bundles(shown)
    sample = iter(sampled_first(found))
    while writer.is_inline and (part := list(islice(sample, AT_ONCE))):
        _write(gatherer, writer, part)
    rest = {id(bundle) for bundle in sample}
    natural = [bundle for bundle in found if id(bundle) in rest]
    for start in range(0, len(natural), AT_ONCE):
        _write(gatherer, writer, natural[start : start + AT_ONCE])
    writer.close_shard()
    check_whole(writer.shard_of, len(shown))
    contrast = find_contrast(shown, [run.id for run in runs])
    table = index.table(runs, contrast, writer.shard_of) | {
        "pieces": gatherer.pieces.pieces,
        "systems": gatherer.recorder.systems.pieces,
        "folder": name,
        "inline": len(writer.inline),
        "shards": writer.count,
        "stages": list(stages),
    }
    page = folder / f"{name}.html"
    text = render_viewer(" and ".join(run.id for run in runs), table, writer.inline)
    page.write_text(text, encoding="utf-8")
    in_page = sum(shard < len(writer.inline) for shard in writer.shard_of.values())
    size = (len(text) + writer.size) / 1e6
    return Viewer(page, len(shown), in_page, size, len(writer.missing))


def _write(gatherer: _Gatherer, writer: ShardWriter, part: Sequence[list[Shown]]) -> None:
    for entries in gatherer.read(part):
        writer.add(entries)


class _Gatherer:
    """Reads whole trajectories and puts them into the index and into entries."""

    def __init__(self, store: Store, home: Home, index: Index) -> None:
        self.pieces = PieceTable()
        self.recorder = Recorder(self.pieces)
        self._store = store
        self._home = home
        self._index = index
        self._readers: dict[tuple[str, str], TokenReader] = {}

    def read(self, part: Sequence[list[Shown]]) -> Iterable[list[Entry]]:
        """Yield the entries of each bundle."""
        ids = [one.episode.id for one in chain.from_iterable(part)]
        found = dict(zip(ids, self._store.trajectories(ids, get=stand_in), strict=True))
        for bundle in part:
            groups: defaultdict[tuple[object, ...], list[Shown]] = defaultdict(list)
            for one in bundle:
                groups[one.group].append(one)
            yield [
                entry
                for group in groups.values()
                for entry in self._group(group, [found[one.episode.id] for one in group])
            ]

    def _group(self, group: Sequence[Shown], found: Sequence[Trajectory]) -> list[Entry]:
        """Return the entries of siblings, which are scored against each other."""
        stage = group[0].stage
        penalty = turn_penalty(stage)
        entries: list[Entry] = []
        for one, trajectory, advantages in zip(
            group, found, sibling_advantages(stage, found), strict=True
        ):
            self._index.add(one, trajectory, advantages)
            content = self.recorder.record(trajectory, advantages, self._reader(one), penalty)
            entries.append(entry(one.row, content, pictures_of(trajectory)))
        return entries

    def _reader(self, one: Shown) -> TokenReader:
        policy = one.episode.phase.partition("/")[0]
        key = one.stage.id, policy
        if key not in self._readers:
            self._readers[key] = TokenReader(self._model_folder(one.stage, policy))
        return self._readers[key]

    def _model_folder(self, stage: StageRun, policy: str) -> Path | None:
        """Return a checkpoint folder of the policy, for its tokenizer; None if it is missing."""
        named = {**stage.parameters.get("policies", {}), **stage.outputs.get("policies", {})}
        places = [named.get(policy), stage.outputs.get("model")]
        if stage.stage == "grpo" and "sft" in stage.inputs:
            places.append(self._store.lineage.get(stage.inputs["sft"]).outputs.get("model"))
        for place in (Path(str(place)) for place in places if place):
            moved = self._home.stages / place.parent.name / place.name
            for folder in (place, moved):
                if (folder / "tokenizer.json").is_file():
                    return folder
        return None
