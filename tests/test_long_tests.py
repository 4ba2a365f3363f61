"""Lists of tests name tests that exist."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = Path(__file__).with_name("long_tests.txt").read_text(encoding="utf-8").splitlines()
NAMES = sorted({line.partition("[")[0] for line in LINES if not line.startswith("#")})


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_test_exists(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
