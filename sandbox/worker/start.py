"""Load this folder as a package of its own and become the zygote; a script, never imported."""

import importlib.util
import os
import sys


def _load_worker() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != folder]
    spec = importlib.util.spec_from_file_location(
        "codedance_worker",
        os.path.join(folder, "__init__.py"),
        submodule_search_locations=[folder],
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no worker package in {folder}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["codedance_worker"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load_worker()
    importlib.import_module("codedance_worker.zygote").main()
