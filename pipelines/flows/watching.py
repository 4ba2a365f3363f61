"""Automations of the Prefect server, so that no run stays "Running" forever.

A flow run sends a heartbeat every half minute. If it stops (the worker or the machine was killed),
the server marks the run as Crashed; the same happens to a run that a worker took and never began.
Both automations apply only to runs with the tag ``codedance``.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import timedelta

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.events import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, emit_event
from prefect.events.related import tags_as_related_resources
from prefect.states import Crashed

from ..store.claims import Holder
from .work import TAG

HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 30
SILENCE_SECONDS = 180
"""Six missed heartbeats: on a busy machine a few are late.

Prefect evaluates consecutive windows of this length: a run whose heartbeat stops early in one,
after its first beat, is marked at the end of the next.
"""
BEGIN_SECONDS = 600
"""Longest time from taking a run to its start (an image may have to be pulled)."""
COMMAND_TAG = "codedance-process|"
"""Beginning of the tag of runs that a command runs itself; the rest names its process."""
DIED = "Its process died. Completed work is kept: run it again to resume."
ENDED = tuple(f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed"))
STOPPED = tuple(
    f"prefect.flow-run.{name}" for name in ("Cancelled", "Cancelling", "Paused", "Suspended")
)
AGAIN = tuple(f"prefect.flow-run.{name}" for name in ("Scheduled", "AwaitingRetry", "Retrying"))


def automations() -> list[AutomationCore]:
    """Return the automations to create on the server."""
    return [
        _crash(
            "codedance: heartbeat stopped",
            "Marks a run as Crashed if its process was killed.",
            after=(HEARTBEAT,),
            expect=(HEARTBEAT, *ENDED, *STOPPED, *AGAIN),
            seconds=SILENCE_SECONDS,
            message="Its heartbeat stopped: the worker or the machine died. Completed work is "
            "kept: run it again to resume.",
        ),
        _crash(
            "codedance: never began",
            "Marks a run as Crashed if a worker took it and never began.",
            after=("prefect.flow-run.Pending",),
            expect=(HEARTBEAT, "prefect.flow-run.Running", *ENDED, *STOPPED, *AGAIN),
            seconds=BEGIN_SECONDS,
            message="A worker took it and died before it began. Run it again.",
        ),
    ]


async def make_automations() -> None:
    """Create the automations on the server, or update those with the same name."""
    async with get_client() as client:
        for wanted in automations():
            found = await client.read_automations_by_name(wanted.name)
            if found:
                await client.update_automation(found[0].id, wanted)
            else:
                await client.create_automation(wanted)


async def watch_unfinished() -> int:
    """Emit a heartbeat for unfinished runs, so that the automations watch earlier runs, too.

    A dead run sends no further heartbeat and is marked as crashed.

    Returns:
        The number of watched runs.
    """
    states = [StateType.RUNNING, StateType.PENDING]
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    async with get_client() as client:
        runs = await client.read_flow_runs(flow_run_filter=wanted)
    for run in runs:
        _emit_heartbeat(run)
    return len(runs)


async def close_dead_runs(pools: Sequence[str], living: Set[str]) -> int:
    """Mark runs as crashed that workers of this machine began and that have no process any more.

    Args:
        pools: Work pools whose runs are processes of this machine.
        living: Ids of the flow runs that have a process; their child runs are alive, too.

    Returns:
        The number of deployment runs that were marked; their child runs are marked as well.
    """
    closed = 0
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(state=_unfinished())):
            if run.work_pool_name in pools and str(run.id) not in living:
                await _close(client, run)
                closed += 1
    await close_lost_tasks()
    return closed


def command_tag() -> str:
    """Return the tag of flow runs that this process runs itself, without a worker."""
    me = Holder.of_this_process()
    return f"{COMMAND_TAG}{me.host}|{me.pid}|{me.begun}"


async def close_dead_commands() -> int:
    """Mark runs as crashed that a command of this host began, and whose process is gone.

    Returns:
        The number of runs that were marked, without their child runs, which are marked as well.
    """
    closed = 0
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(state=_unfinished())):
            makers = [_holder(tag) for tag in run.tags if tag.startswith(COMMAND_TAG)]
            if any(maker.is_gone() for maker in makers):
                await _close(client, run)
                closed += 1
    if closed:
        await close_lost_tasks()
    return closed


def _holder(tag: str) -> Holder:
    host, pid, begun = tag.removeprefix(COMMAND_TAG).rsplit("|", 2)
    return Holder(host, int(pid), int(begun), "")


def _unfinished() -> FlowRunFilterState:
    begun = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    return FlowRunFilterState(type=begun)


async def _close(client: PrefectClient, run: FlowRun) -> None:
    """Mark a run whose process is gone, and its unfinished child runs, as crashed."""
    parent = FlowRunFilterParentFlowRunId(any_=[run.id])
    within = FlowRunFilter(state=_unfinished(), parent_flow_run_id=parent)
    for one in (*await client.read_flow_runs(flow_run_filter=within), run):
        await client.set_flow_run_state(one.id, Crashed(message=DIED), force=True)


async def close_lost_tasks() -> int:
    """Mark unfinished tasks of ended flow runs as crashed, which Prefect does not do.

    Returns:
        The number of marked tasks.
    """
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    begun = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    wanted = TaskRunFilter(state=TaskRunFilterState(type=begun))
    async with get_client() as client:
        lost = await client.read_task_runs(flow_run_filter=ended, task_run_filter=wanted)
        for run in lost:
            state = Crashed(message="The process that ran it died.")
            await client.set_task_run_state(run.id, state, force=True)
    return len(lost)


def _emit_heartbeat(run: FlowRun) -> None:
    emit_event(
        event=HEARTBEAT,
        resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        related=tags_as_related_resources(set(run.tags)),
    )


def _crash(
    name: str,
    description: str,
    *,
    after: tuple[str, ...],
    expect: tuple[str, ...],
    seconds: int,
    message: str,
) -> AutomationCore:
    crash = ChangeFlowRunState(
        state=StateType.CRASHED, name="Crashed", message=message, force=False
    )
    return AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            after=set(after),
            expect=set(expect),
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.id": f"prefect.tag.{TAG}",
                "prefect.resource.role": "tag",
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[crash],
    )
