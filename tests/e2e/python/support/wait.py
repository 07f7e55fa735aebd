"""Bounded waiting for a state instead of sleeping for a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T], what: str, seconds: float = 15, pause: float = 0.1) -> T:
    """The first truthy value of `probe`; fails the test when none comes in time."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s, last seen {value!r}")
        time.sleep(pause)
