"""Small runs for the tests of the viewer, and readers of its pages."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from codedance.envs.rewards import score_group
from codedance.envs.types import Action, Difficulty, Ending, Tokens, Turn
from codedance.pipelines.runs.session import open_session

from ..makers import make_lost, make_request, make_task, make_trajectory

HOSTILE = (
    "</script><script>document.title='owned'</script><!--<script>--><img src=x "
    "onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">'\"&\u2028]]>"
)
PARAMETERS = {"grpo": {"reward": "bat", "scale_rewards": "floor", "std_floor": 0.5}}


def open_viewer_session(home):
    return open_session(home, track=False)


def make_group(task, *, right=2, wrong=2, failed=0):
    """Return scored siblings; the last ``wrong`` are wrong; ``failed`` code turns of each fail."""
    members = [make_trajectory(task, calls=1) for _ in range(right)]
    members += [
        make_trajectory(task, answer="5", accuracy=0.0, calls=2, failed=failed)
        for _ in range(wrong)
    ]
    terms = score_group(members, reward="bat")
    return [replace(one, reward_terms=own) for one, own in zip(members, terms, strict=True)]


def begin_pipeline(store, name="smoke"):
    """Start a pipeline run with an evaluation and a training; return the three rows."""
    lineage = store.lineage
    pipeline = lineage.begin(make_request("pipeline", parameters={"suite": name}))
    grpo = lineage.begin(make_request("grpo", parameters=PARAMETERS), parent=pipeline.id)
    evaluate = lineage.begin(make_request("evaluate"), parent=pipeline.id)
    outputs = {"grpo": grpo.id, "evaluate": evaluate.id}
    lineage.mark(pipeline.id, "running", outputs=outputs)
    return lineage.get(pipeline.id), grpo, evaluate


def fill(store, grpo, evaluate, *, better="grpo"):
    """Store a step of training, and an evaluation in which ``better`` is right on every task."""
    tasks = [
        make_task(n, family="count" if n % 2 else "bars", difficulty=list(Difficulty)[n % 3])
        for n in range(4)
    ]
    for task in tasks[:2]:
        group = make_group(task, failed=1)
        store.add_trajectories([task], group, stage_run=grpo.id, phase="train", step=3)
    for policy in ("sft", "grpo"):
        is_right = policy == better
        given = [
            make_trajectory(
                task,
                calls=int(n % 2 == 0),
                answer="3" if is_right else "7",
                accuracy=float(is_right),
                reward_terms={},
            )
            for n, task in enumerate(tasks)
        ]
        if policy == "sft":
            given[3] = make_lost(tasks[3])
        store.add_trajectories(tasks, given, stage_run=evaluate.id, phase=f"{policy}/greedy")
    return tasks


def hostile_run(store, evaluate):
    """Store an episode in which every text of a model or a task is an attack."""
    task = make_task(question=HOSTILE, answer=HOSTILE, family=HOSTILE, id=f"toy/{HOSTILE}")
    made = make_trajectory(task, answer=HOSTILE, accuracy=0.0)
    code = made.turns[0]
    run = replace(code.execution, stdout=HOSTILE, stderr=HOSTILE, error=HOSTILE)
    reply = replace(code.reply, parts=(HOSTILE,))
    attack = f"import {'a' * 9}\nx.crop()  # {HOSTILE}\n'''{HOSTILE}"
    turns = (
        Turn(f"<think>{HOSTILE}</think>", Action("code", attack), run, reply),
        Turn(HOSTILE, Action("malformed", HOSTILE, HOSTILE)),
    )
    made = replace(
        made, turns=turns, ending=Ending.MALFORMED, policy_id=HOSTILE, reward_terms={HOSTILE: 1.0}
    )
    made = replace(made, tokens=Tokens((1, 2), (-0.5, float("-inf")), (0, 1)))
    store.add_trajectories([task], [made], stage_run=evaluate.id, phase=f"{HOSTILE[:40]}/greedy")


def read_page(path):
    """Return the index of a page, and its inline shards."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text)
    found = {name: json.loads(body) for name, body in blocks}
    return found.pop("index"), found


def read_shard(path):
    """Return the data of a shard file."""
    number, text = re.fullmatch(r"codedanceShard\((\d+),(.*)\);\n", path.read_text()).groups()
    return int(number), json.loads(json.loads(text))
