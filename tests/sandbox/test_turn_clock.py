"""Attribution of an overrun to the block, to its own threads, or to the machine."""

import os
import threading
import time

import pytest
from codedance.sandbox import Limits, SandboxError
from codedance.sandbox.host import kernel_view, turn_clock
from codedance.sandbox.host.kernel_view import KernelView, Usage
from codedance.sandbox.host.turn_clock import Step, TurnClock

LIMITS = Limits(wall_seconds=0.2, cpu_seconds=5.0)


class Hand:
    """A clock that advances only during sleep."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 0.001)


@pytest.fixture
def hand(monkeypatch):
    clock = Hand()
    monkeypatch.setattr(turn_clock, "time", clock)
    return clock


class Scripted:
    """Readings of the kernel, as shares of the elapsed time."""

    def __init__(self, hand, waiting=0.0, computing=0.0):
        self.hand, self.waiting, self.computing = hand, waiting, computing

    def usage(self):
        return Usage()

    def cpu_seconds(self):
        return self.computing * self.hand.now

    def note_waiting(self, *, afresh=False):
        pass

    def starved_seconds(self, _before):
        return self.waiting * self.hand.now

    def wanted_seconds(self, _before):
        return (self.waiting + self.computing) * self.hand.now


def outcome(view):
    """Poll until the time-out; return the elapsed time."""
    clock = TurnClock(view, LIMITS, patience_seconds=0.2)
    while True:
        view.hand.sleep(clock.seconds_to_look)
        if clock.look() is not Step.GO_ON:
            return clock.wall_seconds


def test_a_block_with_a_core_times_out_at_its_limit(hand):
    assert outcome(Scripted(hand)) == pytest.approx(0.2, abs=0.01)


def test_waiting_for_less_than_half_of_the_time_does_not_extend_the_limit(hand):
    assert outcome(Scripted(hand, waiting=0.4)) == pytest.approx(0.2, abs=0.01)


def test_a_block_that_mostly_waited_gets_the_missed_time(hand):
    """With two thirds of the time spent waiting, 0.2 s of its own time take 0.6 s."""
    assert outcome(Scripted(hand, waiting=2 / 3)) == pytest.approx(0.6, abs=0.01)


def test_a_block_without_any_core_is_an_infrastructure_failure(hand):
    with pytest.raises(SandboxError, match="for a core"):
        outcome(Scripted(hand, waiting=1.0))
    assert hand.now == pytest.approx(8 * 0.2 + 0.2, abs=0.2)


def test_a_time_out_is_followed_by_a_kill(hand):
    clock = TurnClock(Scripted(hand), LIMITS)
    steps = []
    while Step.KILL not in steps:
        hand.sleep(clock.seconds_to_look)
        steps.append(clock.look())
    assert steps.count(Step.INTERRUPT) == 1
    assert clock.wall_seconds == pytest.approx(1.2, abs=0.01)
    assert clock.verdict() == "ran longer than 0.2 s"


def test_processor_time_far_over_its_limit_is_a_kill_at_any_time(hand):
    clock = TurnClock(Scripted(hand, computing=20.0), Limits(wall_seconds=60.0, cpu_seconds=1.0))
    step = Step.GO_ON
    while step is Step.GO_ON:
        hand.sleep(clock.seconds_to_look)
        step = clock.look()
    assert step is Step.KILL
    assert clock.wall_seconds == pytest.approx(2.0 / 20, abs=0.05)
    assert clock.verdict() == "used more than 1 s of processor time"


def test_time_for_which_the_host_stopped_the_block_is_not_charged(hand):
    clock = TurnClock(Scripted(hand), LIMITS)
    hand.sleep(0.1)
    with clock.stopped():
        hand.sleep(50.0)
    assert clock.wall_seconds == pytest.approx(0.1)
    assert clock.look() is Step.GO_ON
    hand.sleep(0.11)
    assert clock.look() is Step.INTERRUPT
    with clock.stopped():
        hand.sleep(50.0)
    assert clock.look() is Step.GO_ON
    hand.sleep(1.01)
    assert clock.look() is Step.KILL


def test_a_starved_block_runs_alone_before_it_is_a_failure_of_the_machine(hand):
    """Starved by its neighbours, it gets its own verdict once it has the cores."""

    class Neighbours(Scripted):
        def starved_seconds(self, _before):
            return min(self.hand.now, 1.0)  # alone from then on

    clock = TurnClock(Neighbours(hand), LIMITS, patience_seconds=0.2)
    step = Step.GO_ON
    while step is Step.GO_ON:
        hand.sleep(clock.seconds_to_look)
        step = clock.look()
    assert clock.is_starved
    assert step is Step.INTERRUPT
    assert hand.now == pytest.approx(1.2, abs=0.05)


def test_a_block_with_a_core_is_not_starved(hand):
    clock = TurnClock(Scripted(hand, computing=1.0), LIMITS)
    while clock.look() is Step.GO_ON:
        hand.sleep(clock.seconds_to_look)
    assert not clock.is_starved


def view_of_self():
    return KernelView(os.pidfd_open(os.getpid()))


def test_sleeping_does_not_count_as_waiting_for_a_core():
    view = view_of_self()
    before = view.usage()
    time.sleep(1.0)
    assert view.starved_seconds(before) < 0.5
    view.close()


class Queued(KernelView):
    """This process as the kernel would show it: its main thread in a state, at a processor time."""

    state, cpu = True, 1.0

    def cpu_seconds(self):
        return self.cpu

    def _is_main_ready(self):
        return self.state


@pytest.fixture
def queued(monkeypatch, hand):
    monkeypatch.setattr(kernel_view, "time", hand)
    view = Queued(os.pidfd_open(os.getpid()))
    monkeypatch.setattr(view, "_thread_times", lambda: {view._main: (1.0, 0.0)})
    yield view
    view.close()


def test_a_wait_that_goes_on_counts_once_it_was_seen_twice(queued, hand):
    before = Usage(1.0, {queued._main: (1.0, 0.0)})
    queued.note_waiting()
    assert queued.starved_seconds(before) == 0.0
    hand.sleep(0.3)
    queued.note_waiting()
    assert queued.starved_seconds(before) == pytest.approx(0.3)


@pytest.mark.parametrize("change", ["it ran", "it slept", "it was stopped"])
def test_a_wait_ends_when_the_thread_ran_slept_or_was_stopped(queued, hand, change):
    before = Usage(1.0, {queued._main: (1.0, 0.0)})
    queued.note_waiting()
    hand.sleep(0.3)
    queued.cpu += 1e-9 if change == "it ran" else 0.0
    queued.state = change != "it slept"
    queued.note_waiting(afresh=change == "it was stopped")
    assert queued.starved_seconds(before) == 0.0


def test_a_sleeping_process_wants_no_core_and_a_computing_one_does():
    view = view_of_self()
    before = view.usage()
    time.sleep(0.3)
    asleep = view.wanted_seconds(before)
    before, ends = view.usage(), time.process_time() + 0.1
    while time.process_time() < ends:
        pass
    assert view.wanted_seconds(before) >= 0.09
    assert asleep < 0.3
    view.close()


def test_threads_that_wait_for_each_other_are_not_starved():
    """Four threads compute on the cores of this test: while one waits, the others run."""
    view = view_of_self()
    before = view.usage()
    data = bytes(1 << 20)
    ends = time.process_time() + 0.5

    def spin():
        import zlib

        while time.process_time() < ends:
            zlib.crc32(data)  # releases the interpreter's lock

    started = time.monotonic()
    threads = [threading.Thread(target=spin) for _ in range(8)]
    for thread in threads:
        thread.start()
    starved = 0.0
    while any(thread.is_alive() for thread in threads):
        starved = max(starved, view.starved_seconds(before))
        time.sleep(0.05)
    ran = view.cpu_seconds() - before.cpu_seconds
    waited = 8 * (time.monotonic() - started) - ran  # of all threads, for any reason
    view.close()
    assert ran > 0.1
    assert starved < waited / 3


def test_the_kernel_has_no_figures_of_a_process_that_has_ended():
    view = view_of_self()
    view.close()
    assert view.thread_count() == 0
    assert view.starved_seconds(Usage()) == 0.0
