"""Waiting for a condition, never for a time."""
import select
import time

DEADLINE = 30.0  # seconds; generous, since only a failing test waits this long


def wait_until(condition, deadline=DEADLINE, what=None, interval=0.005):
    """Polls condition() until it is true and returns its value; AssertionError after deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what or condition}")
        select.select([], [], [], interval)  # the pause between two looks, not synchronisation
