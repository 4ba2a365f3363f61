"""Cost of running a stage as a Prefect flow instead of as a function.

    python examples/flow_cost.py [REPETITIONS]

The curation of the preset `smoke` is made once, in a temporary folder. Later runs reuse it by its
content, so only the overhead is timed: of a plain call of `run_stage`, and of the flow `curate`
with its task, log lines, artifacts and heartbeats, with a Prefect server (the one in
PREFECT_API_URL, else a temporary one). The difference is the flow's cost.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from codedance.pipelines.config.home import Home, prepare_environment
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import run_stage
from codedance.pipelines.runs.session import open_session


def time_function(session, run) -> float:
    """Return the seconds of the stage as a function."""
    begun = time.perf_counter()
    run_stage(session, "curate", run)
    return time.perf_counter() - begun


async def time_flow(run) -> float:
    """Return the seconds of the stage as a flow."""
    from codedance.pipelines.flows import FLOWS

    begun = time.perf_counter()
    await FLOWS["curate"](run.preset, run.seed, from_run=run.id)
    return time.perf_counter() - begun


async def measure(repetitions: int) -> None:
    """Print the medians of both and their difference."""
    with open_session(track=False) as session:
        run = open_pipeline(session, RunRequest("smoke"))
        run_stage(session, "curate", run)
        await time_flow(run)  # the first one starts the server and creates the tables
        plain, flows = [], []
        for _ in range(repetitions):  # in turns, so the machine's load affects both
            plain.append(time_function(session, run))
            flows.append(await time_flow(run))
    costs = sorted(b - a for a, b in zip(plain, flows, strict=True))
    load = os.getloadavg()[0]
    print(f"function  {statistics.median(plain):.3f} s (median of {repetitions})")
    print(f"flow      {statistics.median(flows):.3f} s")
    print(f"cost      {statistics.median(costs):.3f} s, {costs[0]:.3f} to {costs[-1]:.3f}")
    print(f"load      {load:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Measure in a temporary folder."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CODEDANCE_DIR"] = folder
        prepare_environment(Home(Path(folder)))
        asyncio.run(measure(repetitions))


if __name__ == "__main__":
    main()
