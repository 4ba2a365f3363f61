"""Each name has one import path: the module that defines it, or the room that exports it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
OTHERS = ("tests", "examples", "benchmarks", "experiments", "docs")
HANDED_OUT = {
    "codedance.sandbox": {"Execution", "Limits", "Outcome", "SandboxError", "open_sandbox"},
    "codedance.envs": {"Item", "load_suite", "register_family", "register_reward_term"},
    "codedance.envs.rewards": {"difficulty_factor", "score_group", "turn_returns"},
    "codedance.envs.suites": {"SuiteError"},
    "codedance.policies": {"group_advantages", "load_policy", "rollout"},
    "codedance.policies.rollouts": {"rollout"},
}
"""Names that rooms re-export for their users."""


def name_of(path: Path) -> str:
    """Return the module name of a file of a room."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("codedance", *(part for part in parts if part != "__init__")))


MODULES = {name_of(path): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
FILES = [path for folder in (*ROOMS, *OTHERS) for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> list[tuple[str, str]]:
    """Return the module and the name of every import from the rooms in a file."""
    found = []
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(base if node.level else ()), *([node.module] if node.module else ())]
            found += [(".".join(parts), alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module in MODULES]


@cache
def defined(module: str) -> set[str]:
    """Return the names defined by a module itself, including its submodules."""
    path = MODULES[module]
    names = {other.rpartition(".")[2] for other in MODULES if other.rpartition(".")[0] == module}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("folder", [*ROOMS, *OTHERS])
def test_names_are_imported_from_where_they_are_defined(folder):
    elsewhere = [
        f"{path.relative_to(ROOT)}: {name} from {module}"
        for path in FILES
        if path.is_relative_to(ROOT / folder)
        for module, name in imported(path)
        if name not in defined(module) | HANDED_OUT.get(module, set())
    ]
    assert elsewhere == []


@pytest.mark.parametrize("module", HANDED_OUT)
def test_a_room_exports_these_names_and_no_others(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    ours = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert ours == HANDED_OUT[module]
