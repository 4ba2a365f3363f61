"""``--workers``: number of processor cores for a command and all processes that it starts.

The libraries read their variables once, on import; the option is therefore applied while the
command line is parsed, before any heavy import. If they are imported already (a command called from
Python) their limits are set directly.
"""

from __future__ import annotations

import os
import sys

CORES = "CODEDANCE_CORES"
"""Variable read by `codedance.sandbox.capacity`: number of concurrent turns in the sandbox."""

_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def use_workers(workers: int | None) -> int | None:
    """Limit the cores of torch, numpy, tokenizers, the sandbox and every process started later."""
    if workers is None:
        return None
    os.environ[CORES] = str(workers)
    for name in _VARIABLES:
        os.environ[name] = str(workers)
    if "numpy" in sys.modules:
        _limit_loaded(workers)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(workers)
    return workers


def _limit_loaded(workers: int) -> None:
    """Limit the loaded numerical libraries of this process, if threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(limits=workers)
