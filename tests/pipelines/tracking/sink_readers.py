"""Reads back what the tracking tools wrote, from their own files."""

from __future__ import annotations

import json
import sqlite3
import struct
from importlib.util import find_spec

from ..kills import wait_until

BLOCK = 32768
"""Size of the blocks of W&B's file, a log of LevelDB's format."""
HEADER = struct.Struct("<IHB")


def is_installed(name):
    found = find_spec(name)
    return found is not None and found.origin is not None


def read_tensorboard(root):
    """Return the points of each run as (metric, step, value), as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = {}
    for folder in {path.parent for path in (root / "tensorboard").rglob("events.*")}:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        runs[folder.name] = [
            (name, event.step, round(event.value, 4))
            for name in events.Tags()["scalars"]
            for event in events.Scalars(name)
        ]
    return runs


def wandb_records(root):
    """Return the records of W&B's files, oldest file first, once its process has written them."""
    found = []
    for path in sorted((root / "wandb").glob("*run-*/*.wandb")):
        wait_until(lambda path=path: any(one.HasField("exit") for one in _records(path)))
        found += _records(path)
    return found


def _records(path):
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole, records = path.read_bytes(), 7, b"", []  # after the file's own header
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size + length
        if place > len(content):  # still being written
            break
        whole += content[place - length : place]
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(whole))
            whole = b""
    return records


def wandb_history(root):
    """Return the run and the values of each line of history."""
    run, lines = "", []
    for record in wandb_records(root):
        if record.HasField("run"):
            run = record.run.run_id
        if record.HasField("history"):
            items = record.history.item
            found = {
                one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in items
            }
            lines.append((run, record.history.step.num, found))
    return lines


def read_wandb(root):
    """Return the points of each run as (metric, step, value); of a repeated index the first."""
    runs, seen = {}, set()
    for run, index, values in wandb_history(root):
        if (run, index) not in seen:
            seen.add((run, index))
            step = values.pop("step")
            runs.setdefault(run, []).extend(
                (name, step, value) for name, value in values.items() if not name.startswith("_")
            )
    return runs


def read_trackio(_root):
    """Return the points of each run as (metric, step, value)."""
    from trackio.utils import TRACKIO_DIR  # one for the whole process

    runs = {}
    with sqlite3.connect(TRACKIO_DIR / "codedance.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id")
        for run, step, metrics in rows:
            values = json.loads(metrics)
            runs.setdefault(run, []).extend((name, step, one) for name, one in values.items())
    return runs


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "trackio": read_trackio}
