"""Both clients of the code interpreter behind one interface, so that a test serves both."""

import asyncio
import inspect
import threading
from functools import cache

from e2b_code_interpreter import AsyncSandbox, Sandbox


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop that all asynchronous calls run on, in a thread of its own."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, daemon=True).start()
    return made


class Blocking:
    """An object of the asynchronous client whose calls wait for their results."""

    def __init__(self, subject):
        self._subject = subject

    def __getattr__(self, name):
        return blocking(getattr(self._subject, name))


def blocking(value):
    """A value as the synchronous client would give it."""
    if inspect.isawaitable(value):
        return blocking(asyncio.run_coroutine_threadsafe(outcome(value), loop()).result())
    if inspect.isroutine(value) or inspect.ismethod(value):
        return lambda *args, **options: blocking(value(*args, **off_loop(options)))
    return Blocking(value) if is_asynchronous(type(value)) else value


async def outcome(awaitable):
    return await awaitable


def is_asynchronous(kind) -> bool:
    members = inspect.getmembers(kind, inspect.iscoroutinefunction)
    return any(not name.startswith("_") for name, _ in members)


def off_loop(options):
    """Callbacks that may block, and call the client themselves."""

    def waiting(callback):
        async def call(value):
            await asyncio.to_thread(callback, value)

        return call

    wrap = {name: waiting(each) for name, each in options.items() if name.startswith("on_")}
    return {**options, **wrap}


CLIENTS = {"sync": Sandbox, "async": Blocking(AsyncSandbox)}
