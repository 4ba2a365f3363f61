"""Digests of interfaces: schemas of data and settings, and each room's public names."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import fields, is_dataclass
from enum import Enum
from types import ModuleType
from typing import Any

import codedance.envs
import codedance.envs.rewards
import codedance.envs.suites
import codedance.envs.types
import codedance.pipelines.config.settings
import codedance.pipelines.store
import codedance.policies
import codedance.sandbox
import codedance.sandbox.types
import gymnasium as gym
from codedance.pipelines.config.deployments import FlowsFile
from codedance.pipelines.config.settings import Preset
from codedance.pipelines.store.schema import Base
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

ROOMS = (
    codedance.sandbox,
    codedance.envs,
    codedance.envs.rewards,
    codedance.envs.suites,
    codedance.policies,
)
DATA = (codedance.sandbox.types, codedance.envs.types)
IDS = ("VisualCode", "VisualCodeMenu")


def schemas() -> dict[str, str]:
    """Return a digest per schema: tables, flows.yaml, the values between rooms, the spaces."""
    found: dict[str, Any] = {
        "flows.yaml": _without_descriptions(FlowsFile.model_json_schema()),
        "preset": _without_descriptions(Preset.model_json_schema()),
    }
    for table in Base.metadata.sorted_tables:
        for dialect in (sqlite.dialect(), postgresql.dialect()):
            sql = str(CreateTable(table).compile(dialect=dialect))
            found[f"table {table.name}, {dialect.name}"] = " ".join(sql.split())
    for module in DATA:
        found |= _values(module)
    for name in IDS:
        env = gym.make(f"codedance.envs:codedance/{name}-v0", suite="nano")
        found[f"spaces of {name}"] = [repr(env.observation_space), repr(env.action_space)]
        env.close()
    return {name: _digest(value) for name, value in found.items()}


def public_names() -> dict[str, list[str]]:
    """Return each room's exported names with the parameters of their signatures."""
    return {
        room.__name__: [_signature(room, name) for name in sorted(room.__all__)] for room in ROOMS
    }


def _without_descriptions(schema: Any) -> Any:
    """Return a JSON schema without the docstrings in it."""
    if isinstance(schema, dict):
        return {
            key: _without_descriptions(value)
            for key, value in schema.items()
            if key != "description" or not isinstance(value, str)
        }
    return [_without_descriptions(one) for one in schema] if isinstance(schema, list) else schema


def _values(module: ModuleType) -> dict[str, Any]:
    """Return the fields of a module's dataclasses and the members of its enumerations."""
    found: dict[str, Any] = {}
    for name, one in vars(module).items():
        if getattr(one, "__module__", None) != module.__name__:
            continue
        if is_dataclass(one):
            found[name] = [(field.name, str(field.type)) for field in fields(one)]
        elif inspect.isclass(one) and issubclass(one, Enum):
            found[name] = {member.name: member.value for member in one}
    return found


def _signature(room: ModuleType, name: str) -> str:
    one = getattr(room, name)
    if inspect.isclass(one) and issubclass(one, BaseException | Enum):
        return name
    try:
        return f"{name}({', '.join(inspect.signature(one).parameters)})"
    except (TypeError, ValueError):
        return name


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
