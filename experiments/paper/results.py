"""From the store to the page: reads the runs' metrics and tests every claim."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from codedance.pipelines.store.store import Store

from .emergences import find_emerged
from .figures import read_figures
from .page import Results, write_page
from .protocol import Protocol
from .records import other_digests, read_records
from .verdicts import judge_claim


def read_results(store: Store, protocol: Protocol, preset: str, seeds: Sequence[int]) -> Results:
    """Test all claims by the finished runs of some seeds."""
    digest = protocol.digest(preset)
    records = read_records(store, preset=preset, digest=digest)
    figures = read_figures(store, protocol, records, seeds)
    return Results(
        preset=preset,
        protocol=protocol,
        digest=digest,
        records=records,
        figures=figures,
        judgements=[
            judge_claim(claim, protocol, figures)
            for claim in protocol.claims
            if claim.kind != "emergence"
        ],
        emerged=[
            find_emerged(claim, protocol, store, records, seeds)
            for claim in protocol.claims
            if claim.kind == "emergence"
        ],
        others=other_digests(store, preset=preset, digest=digest),
    )


def save_page(results: Results, path: Path) -> None:
    """Write the page atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.write_text(write_page(results), encoding="utf-8")
    fresh.replace(path)
