"""Number of concurrent turns, and their order."""

import signal
import threading
import time

import pytest
from codedance.sandbox.host.turn_gate import TurnGate


def test_the_number_of_concurrent_turns_is_limited():
    gate = TurnGate(2)
    inside, most = [], []

    def enter():
        with gate.place():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 2


def test_waiting_turns_are_served_in_the_order_of_arrival():
    gate = TurnGate(1)
    served = []

    def wait(number):
        with gate.place():
            served.append(number)

    with gate.place():
        threads = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4, 5]


def test_a_place_is_released_after_an_error():
    gate = TurnGate(1)
    for _ in range(3):
        try:
            with gate.place():
                raise ValueError
        except ValueError:
            pass
    with gate.place():
        pass


def test_an_interrupted_turn_leaves_the_queue():
    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    gate = TurnGate(1)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with gate.place():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted), gate.place():
                pass
        with gate.place():
            pass
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_a_turn_that_only_waits_lends_its_place_and_needs_none_afterwards():
    gate = TurnGate(1)
    with gate.place() as slow:
        slow.lend(is_busy=False)
        slow.lend(is_busy=False)
        with gate.place():
            assert not _is_free(gate)
    assert _is_free(gate)
    with gate.place():
        assert not _is_free(gate)


def test_computing_turns_lend_at_most_as_many_places_as_exist():
    gate = TurnGate(1)
    with gate.place() as first:
        first.lend(is_busy=True)
        with gate.place() as second:
            second.lend(is_busy=True)
            assert not _is_free(gate)
        assert _is_free(gate)
    with gate.place() as third:
        third.lend(is_busy=True)
        assert _is_free(gate)


def _is_free(gate):
    """Return whether a new turn would start immediately."""
    got_in = threading.Event()

    def come():
        with gate.place():
            got_in.set()

    threading.Thread(target=come, daemon=True).start()
    return got_in.wait(0.2)
