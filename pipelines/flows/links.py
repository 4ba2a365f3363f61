"""The address of a run's MLflow page; asked over HTTP, so that nothing heavy is loaded."""

from __future__ import annotations

import os
from typing import Any

from ..home import Home
from ..mlflow_sender import EXPERIMENT, RUN_TAG

PAGES = "CODEDANCE_MLFLOW_PAGES"
"""Where MLflow's pages are, if the tracking address is a database: `flows serve` sets it."""
PATIENCE_SECONDS = 2.0


def mlflow_pages(home: Home) -> str | None:
    """Give the address of MLflow's pages; None when nobody serves them."""
    if home.mlflow_uri.startswith("http"):
        return home.mlflow_uri.rstrip("/")
    return os.environ.get(PAGES)


async def run_address(home: Home, run_id: str) -> str | None:
    """Give the page of one of our runs, or of all where MLflow has not been told of it yet."""
    import httpx

    pages = mlflow_pages(home)
    if pages is None:
        return None
    name = {"experiment_name": EXPERIMENT}
    try:
        async with httpx.AsyncClient(base_url=pages, timeout=PATIENCE_SECONDS) as client:
            answer = await client.get("/api/2.0/mlflow/experiments/get-by-name", params=name)
            experiment = answer.raise_for_status().json()["experiment"]["experiment_id"]
            wanted: dict[str, Any] = {
                "experiment_ids": [experiment],
                "filter": f"tags.`{RUN_TAG}` = '{run_id}'",
                "max_results": 1,
            }
            answer = await client.post("/api/2.0/mlflow/runs/search", json=wanted)
            runs = answer.raise_for_status().json().get("runs", [])
    except (httpx.HTTPError, ValueError, KeyError):
        return pages
    if not runs:
        return f"{pages}/#/experiments/{experiment}"
    return f"{pages}/#/experiments/{experiment}/runs/{runs[0]['info']['run_id']}"
