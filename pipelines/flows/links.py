"""The address of a run's MLflow page, found over HTTP to avoid heavy imports."""

from __future__ import annotations

import os
from typing import Any

import httpx

from ..config.home import Home
from ..tracking.mlflow.address import EXPERIMENT, RUN_TAG, Address, named_place

PAGES = "CODEDANCE_MLFLOW_PAGES"
"""Variable with the address of MLflow's UI, if the tracking URI is a database.

`flows serve` sets it.
"""
PATIENCE_SECONDS = 2.0


async def run_address(home: Home, run_id: str) -> str | None:
    """Find the MLflow page of a run.

    Returns:
        The address of the page, or of the experiment where MLflow has no such run yet; None where
        MLflow's UI is not served.
    """
    base = home.mlflow_uri if home.mlflow_uri.startswith("http") else os.environ.get(PAGES)
    if base is None:
        return None
    address = Address(base.rstrip("/"), **named_place())
    try:
        async with httpx.AsyncClient(
            base_url=address.uri, auth=_login(), headers=_token(), timeout=PATIENCE_SECONDS
        ) as client:
            experiment = address.experiment_id or await _experiment(client, address)
            run = await _run(client, experiment, run_id)
    except (httpx.HTTPError, ValueError, KeyError):
        return address.shown
    pages = f"{address.shown}/#/experiments/{experiment}"
    return pages if run is None else f"{pages}/runs/{run}"


async def _experiment(client: httpx.AsyncClient, address: Address) -> str:
    name = {"experiment_name": address.experiment or EXPERIMENT}
    answer = await client.get("/api/2.0/mlflow/experiments/get-by-name", params=name)
    return answer.raise_for_status().json()["experiment"]["experiment_id"]


async def _run(client: httpx.AsyncClient, experiment: str, run_id: str) -> str | None:
    wanted: dict[str, Any] = {
        "experiment_ids": [experiment],
        "filter": f"tags.`{RUN_TAG}` = '{run_id}'",
        "max_results": 1,
    }
    answer = await client.post("/api/2.0/mlflow/runs/search", json=wanted)
    found = answer.raise_for_status().json().get("runs", [])
    return found[0]["info"]["run_id"] if found else None


def _login() -> tuple[str, str] | None:
    """Return the user name and password that MLflow's own client would use."""
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None


def _token() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
