"""How many at once, and in which order."""

import signal
import threading
import time

import pytest
from codedance.sandbox.turn_gate import TurnGate


def test_no_more_than_its_places_are_inside():
    gate = TurnGate(2)
    inside, most = [], []

    def enter():
        with gate:
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


def test_who_waits_is_served_in_the_order_of_arrival():
    gate = TurnGate(1)
    served = []

    def wait(number):
        with gate:
            served.append(number)

    with gate:
        threads = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4, 5]


def test_a_place_is_given_back_after_an_error():
    gate = TurnGate(1)
    for _ in range(3):
        try:
            with gate:
                raise ValueError
        except ValueError:
            pass
    with gate:
        pass


def test_who_is_interrupted_while_waiting_leaves_the_queue():
    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    gate = TurnGate(1)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with gate:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted), gate:
                pass
        with gate:
            pass
    finally:
        signal.signal(signal.SIGALRM, previous)
