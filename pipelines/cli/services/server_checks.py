"""Checks that the configured Prefect and MLflow servers answer, and are compatible."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from .finding import Finding

if TYPE_CHECKING:
    import httpx

MLFLOW_FROM = (3, 15)
"""Oldest server with everything that we log: logged models, traces with attachments."""
SECONDS = 10.0
_POOL = "codedance-process"
_VARIABLES = {"prefect server": "PREFECT_API_URL", "mlflow server": "MLFLOW_TRACKING_URI"}
Judge = Callable[[str, str, "httpx.Client"], Finding]


def check_servers() -> list[Finding]:
    """Check the version of each server, and a request that needs authorization."""
    return [_prefect(), _mlflow()]


def _prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        words = "no PREFECT_API_URL: each run starts one, or run codedance flows serve"
        return Finding("prefect server", words)
    return _asked("prefect server", url, _judge_prefect)


def _mlflow() -> Finding:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri:
        return Finding(
            "mlflow server", "no MLFLOW_TRACKING_URI: mlflow.db in CODEDANCE_DIR is used"
        )
    if uri.startswith(("http://", "https://")):
        return _asked("mlflow server", uri, _judge_mlflow)
    if "://" not in uri or uri.startswith("file:"):
        remedy = "MLflow 3 stores no runs in folders: MLFLOW_TRACKING_URI=sqlite:////PATH/mlflow.db"
        return Finding("mlflow server", uri, is_well=False, remedy=remedy)
    return Finding("mlflow server", f"none, a database: {uri.partition('@')[2] or uri}")


def _asked(name: str, url: str, judge: Judge) -> Finding:
    """Check a server; one that does not answer is a finding too."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=SECONDS, follow_redirects=True) as client:
            return judge(name, url, client)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        words = f"{url} does not answer: {error or type(error).__name__}"
        remedy = f"start it, or unset {_VARIABLES[name]} to use an embedded one"
        return Finding(name, words, is_well=False, remedy=remedy)


def _judge_prefect(name: str, url: str, client: httpx.Client) -> Finding:
    client.headers.update(_prefect_rights())
    answer = client.get("/admin/version")
    if answer.status_code in (401, 403):
        remedy = "set PREFECT_API_KEY (Cloud), or PREFECT_API_AUTH_STRING=USER:PASSWORD"
        return Finding(name, _refused(url, answer), is_well=False, remedy=remedy)
    found, ours = _version_in(answer), version("prefect")
    words = f"{url} is Prefect {found or 'of an unknown version'}, ours {ours}"
    if found is None or _numbers(found)[:2] < _numbers(ours)[:2] or _major(found) != _major(ours):
        remedy = f"a server must not be older than its clients: pip install 'prefect=={ours}' there"
        return Finding(name, words, is_well=False, remedy=remedy)
    # Deploying and the work pools' page send this; a server with fastapi 0.151 rejects it.
    probe = client.post(f"/work_pools/{_POOL}/workers/filter", json={"limit": None})
    if probe.status_code == 422:
        remedy = "its fastapi breaks deploying and work pools: pip install 'fastapi<0.151' there"
        return Finding(name, words, is_well=False, remedy=remedy)
    return Finding(name, words)


def _judge_mlflow(name: str, url: str, client: httpx.Client) -> Finding:
    client.headers.update(_mlflow_rights())
    answer = client.get("/version")
    found, ours = _version_in(answer), version("mlflow")
    body = {"max_results": 1}
    rights = client.post("/api/2.0/mlflow/experiments/search", json=body)
    if rights.status_code in (401, 403):
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; "
            "a server reached by another name needs --allowed-hosts"
        )
        return Finding(name, _refused(url, rights), is_well=False, remedy=remedy)
    words = f"{url} is MLflow {found or 'of an unknown version'}, ours {ours}"
    if found is None or _numbers(found)[:2] < MLFLOW_FROM or _major(found) != _major(ours):
        oldest = ".".join(map(str, MLFLOW_FROM))
        remedy = f"it must be {oldest} or later: pip install 'mlflow=={ours}' there"
        return Finding(name, words, is_well=False, remedy=remedy)
    return Finding(name, words)


def _prefect_rights() -> dict[str, str]:
    import base64

    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _mlflow_rights() -> dict[str, str]:
    import base64

    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _refused(url: str, answer: httpx.Response) -> str:
    return f"{url} denies access ({answer.status_code})"


def _version_in(answer: httpx.Response) -> str | None:
    """Parse a version from a response's text, quoted or not; None if it is not one."""
    text = answer.text.strip().strip('"')
    return text if answer.is_success and text[:1].isdigit() and len(text) < 40 else None


def _major(text: str) -> int:
    return _numbers(text)[0]


def _numbers(text: str) -> tuple[int, ...]:
    digits = ["".join(c for c in part if c.isdigit()) for part in text.split(".")[:3]]
    return tuple(int(part or 0) for part in digits)
