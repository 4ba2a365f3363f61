"""``--workers``: how many processor cores a command uses, itself and all that it starts.

The libraries read their variables once, when they are imported, so the option is heeded while the
command line is read: nothing heavy is imported before. Where they are imported already (a command
that is called from Python) they are told directly.
"""

from __future__ import annotations

import os
import sys

CORES = "CODEDANCE_CORES"
"""Read by `codedance.sandbox.capacity`: the sandbox runs so many turns at once."""

_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def use_workers(workers: int | None) -> int | None:
    """Bound the cores of torch, numpy, tokenizers, the sandbox and every process started later."""
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
    """Tell the numerical libraries of this process, where threadpoolctl is there to do it."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(limits=workers)
