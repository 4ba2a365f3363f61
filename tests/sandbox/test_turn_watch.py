"""Supervision of a running block: when it is stopped, and when it may continue."""

import threading
from contextlib import contextmanager

import pytest
from codedance.sandbox.host.turn_clock import Step
from codedance.sandbox.host.turn_gate import SLICE_SECONDS, TurnGate
from codedance.sandbox.host.turn_watch import OverMemory, Overrun, TurnWatch


class Scripted:
    """A block's clock and process: what they are told and what they report."""

    def __init__(self, *, cores=1.0, is_starved=False):
        self.cores, self.is_starved = cores, is_starved
        self.step = Step.GO_ON
        self.seconds_to_look = 0.0
        self.said = []
        self.has_paused = threading.Event()

    def look(self):
        return self.step

    def look_within(self, seconds):
        self.seconds_to_look = seconds

    def cores_wanted(self):
        return self.cores

    @contextmanager
    def stopped(self):
        self.said.append("clock stopped")
        yield
        self.said.append("clock goes on")

    def interrupt(self):
        self.said.append("interrupt")

    def pause(self):
        self.said.append("pause")
        self.has_paused.set()

    def resume(self):
        self.said.append("resume")


class Hand:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


STOPPED = ["clock stopped", "pause", "resume", "clock goes on"]


def watched(gate, block, *, is_measured=True):
    place = gate.place()
    place.hold()
    return place, TurnWatch(block, block, place, is_measured=is_measured)


def look_in_thread(watch):
    thread = threading.Thread(target=watch.look)
    thread.start()
    return thread


def test_a_block_that_computes_keeps_its_place_while_nobody_waits():
    gate, block = TurnGate(1), Scripted()
    place, watch = watched(gate, block)
    watch.look()
    assert (place.held, block.said) == (1, [])
    assert watch.seconds_to_look == SLICE_SECONDS


def test_a_block_that_sleeps_gives_up_its_place_and_is_not_stopped():
    gate, block = TurnGate(1), Scripted(cores=0.1)
    place, watch = watched(gate, block)
    watch.look()
    assert (place.held, block.said) == (0, [])


def test_a_sleeper_that_computes_is_stopped_until_a_place_is_free():
    gate, block = TurnGate(1), Scripted(cores=0.0)
    place, watch = watched(gate, block)
    watch.look()
    with gate.place():
        block.cores = 1.0
        thread = look_in_thread(watch)
        assert block.has_paused.wait(60)
        assert not place.held
    thread.join()
    assert (place.held, block.said) == (1, STOPPED)


def test_a_block_is_stopped_after_its_slice_for_one_that_waits():
    hand, block = Hand(), Scripted()
    gate = TurnGate(1, now=hand)
    place, watch = watched(gate, block)
    other = gate.place()
    gate.ask(other)
    watch.look()
    assert block.said == []  # its slice is not over
    hand.seconds = SLICE_SECONDS
    thread = look_in_thread(watch)
    assert block.has_paused.wait(60)
    assert other.held
    gate.leave(other)
    thread.join()
    assert (place.held, block.said) == (1, STOPPED)


def test_threads_that_compute_side_by_side_need_a_place_each():
    gate, block = TurnGate(4), Scripted(cores=2.9)
    place, watch = watched(gate, block)
    watch.look()
    assert place.held == 3
    block.cores = 16.0
    watch.look()
    assert place.held == 4
    block.cores = 1.0
    watch.look()
    assert (place.held, block.said) == (1, [])


def test_a_starved_block_runs_without_neighbours():
    gate, block = TurnGate(2), Scripted(is_starved=True)
    place, watch = watched(gate, block)
    with gate.place() as neighbour:
        thread = look_in_thread(watch)
        assert block.has_paused.wait(60)
        assert neighbour.held
    thread.join()
    assert (place.held, block.said) == (2, STOPPED)


def test_a_process_that_cannot_be_measured_counts_as_computing():
    gate, block = TurnGate(1), Scripted(cores=0.0)
    place, watch = watched(gate, block, is_measured=False)
    watch.look()
    assert place.held == 1


def test_the_limits_are_checked_before_the_shares():
    block = Scripted()
    _, watch = watched(TurnGate(1), block)
    block.step = Step.INTERRUPT
    watch.look()
    assert block.said == ["interrupt"]
    block.step = Step.KILL
    with pytest.raises(Overrun):
        watch.look()


class Memory:
    """A limit on memory, and whether it is exceeded."""

    seconds_to_look = 0.01
    is_exceeded = False

    def is_over(self):
        return self.is_exceeded


def test_memory_is_checked_more_often_than_the_clock():
    block, gate, memory = Scripted(), TurnGate(1), Memory()
    with gate.place() as place:
        watch = TurnWatch(block, block, place, is_measured=True, memory=memory)
        watch.look()
        assert (block.seconds_to_look, watch.seconds_to_look) == (SLICE_SECONDS, 0.01)
        block.step = Step.KILL
        watch.look()  # the clock is not due
        memory.is_exceeded = True
        with pytest.raises(OverMemory):
            watch.look()
        memory.is_exceeded, block.seconds_to_look = False, 0.0
        with pytest.raises(Overrun):
            watch.look()
