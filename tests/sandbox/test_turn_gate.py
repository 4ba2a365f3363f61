"""Number of concurrent turns, and their order."""

import signal
import threading
import time

import pytest
from codedance.sandbox.host.turn_gate import SLICE_SECONDS, TurnGate


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


class Hand:
    """A clock that advances when told."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def running(gate, count):
    """Return that many turns which have their first place."""
    places = [gate.place() for _ in range(count)]
    for place in places:
        gate.ask(place)
    assert all(place.held for place in places)
    return places


def queued(gate, count):
    """Return that many new turns which wait."""
    places = [gate.place() for _ in range(count)]
    for place in places:
        gate.ask(place)
    assert not any(place.held for place in places)
    return places


def test_a_sleeping_turn_gives_up_its_place_and_needs_one_to_compute_again():
    gate = TurnGate(1)
    (sleeper,) = running(gate, 1)
    sleeper.lend()
    sleeper.lend()
    (other,) = running(gate, 1)
    assert not sleeper.renew()
    gate.leave(other)
    assert sleeper.held == 1
    gate.leave(sleeper)
    assert running(gate, 1)


def test_a_turn_is_due_after_its_slice_only_while_another_waits():
    hand = Hand()
    gate = TurnGate(1, now=hand)
    (place,) = running(gate, 1)
    hand.seconds = 10.0
    assert not place.is_due
    queued(gate, 1)
    assert place.is_due


def test_a_slice_begins_with_the_grant():
    hand = Hand()
    gate = TurnGate(1, now=hand)
    (first,) = running(gate, 1)
    (second,) = queued(gate, 1)
    hand.seconds = SLICE_SECONDS
    assert not first.renew()
    assert second.held
    assert not second.is_due
    hand.seconds = 2 * SLICE_SECONDS
    assert second.is_due


def test_a_new_turn_is_served_before_those_that_have_run():
    gate = TurnGate(1)
    spinning = running(gate, 1)
    for _ in range(3):
        spinning += queued(gate, 1)
        spinning[-2].renew()  # each computes for a slice, then queues again
    (new,) = queued(gate, 1)
    assert not spinning[-1].renew()
    assert new.held


def test_new_turns_do_not_starve_one_that_continues():
    gate = TurnGate(1)
    (old,) = running(gate, 1)
    waiting = queued(gate, 12)
    old.renew()
    served = 0
    while not old.held:
        gate.leave(waiting.pop(0))
        served += 1
    assert served == 5  # the one that got its place, then four that overtook it


def test_spinning_turns_get_equal_shares_and_a_new_one_waits_a_slice():
    """Six turns that never end, on two cores; every fifth slice a short one arrives."""
    hand = Hand()
    gate = TurnGate(2, now=hand)
    spinning = [gate.place() for _ in range(6)]
    for place in spinning:
        gate.ask(place)
    slices = dict.fromkeys(spinning, 0)
    waits = []
    short = None
    for step in range(300):
        if step % 5 == 0 and step >= 10:  # all six have run
            short, arrived = gate.place(), step
            gate.ask(short)
        if short is not None and short.held:
            waits.append(step - arrived)
            gate.leave(short)
            short = None
        for place in spinning:
            slices[place] += place.held
        hand.seconds += 1.1 * SLICE_SECONDS
        for place in spinning:
            if place.held and place.is_due:
                place.renew()
    assert len(waits) == 58
    assert max(waits) <= 1
    assert max(slices.values()) - min(slices.values()) <= 2


def test_sleepers_that_compute_again_cannot_exceed_the_places():
    """The attack: all give up their places asleep, then all spin."""
    gate = TurnGate(2)
    sleepers = []
    for _ in range(7):
        sleepers += running(gate, 1)
        sleepers[-1].lend()
    granted = [sleeper.renew() for sleeper in sleepers]
    assert granted == [True, True, *[False] * 5]
    assert sum(sleeper.held for sleeper in sleepers) == 2


def test_a_wide_turn_waits_for_all_of_its_places_and_nobody_overtakes_it():
    gate = TurnGate(2)
    first, second = running(gate, 2)
    third = gate.place()
    first.width = 2
    assert not first.renew()
    gate.ask(third)
    third.renew()  # it has run: first in line is the wide turn, with one place free
    assert not third.held
    gate.leave(second)
    assert (first.held, third.held) == (2, 0)


def test_a_turn_cannot_need_more_places_than_exist():
    gate = TurnGate(2)
    (wide,) = running(gate, 1)
    wide.width = 100
    assert wide.renew()
    assert wide.held == 2


def test_beyond_a_few_turns_a_new_one_waits_for_memory():
    room = [False]
    gate = TurnGate(1, has_room=lambda: room[0])
    for _ in range(2):
        (place,) = running(gate, 1)
        place.lend()
    (new,) = queued(gate, 1)
    assert place.renew()  # one that has started continues
    place.lend()
    assert not new.held
    room[0] = True
    gate.grant()
    assert new.held


def test_a_turn_that_ends_leaves_the_queue():
    gate = TurnGate(1)
    (first,) = running(gate, 1)
    second, third = queued(gate, 2)
    gate.leave(second)
    gate.leave(first)
    assert third.held
