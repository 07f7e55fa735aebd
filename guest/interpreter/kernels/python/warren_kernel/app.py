"""The kernel's application."""

import contextlib

import zmq
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config

from . import formatters, pillow

# Messages that wait for a slow reader before the kernel's output stops.
WAITING_MESSAGES = 16


def config():
    """What differs from ipykernel's defaults."""
    c = Config()
    c.IPKernelApp.outstream_class = "warren_kernel.streams.BoundedOutStream"
    c.InteractiveShell.colors = "nocolor"
    # The history of a kernel lives as long as the kernel.
    c.HistoryManager.hist_file = ":memory:"
    c.PlainTextFormatter.max_seq_length = 0
    c.Completer.use_jedi = False
    return c


class KernelApp(IPKernelApp):
    """An ipykernel that loses no output and shows results in more forms."""

    def init_iopub(self, context):
        # Publishing sockets drop what does not fit. This one waits instead.
        context.setsockopt(zmq.SNDHWM, WAITING_MESSAGES)
        try:
            super().init_iopub(context)
        finally:
            context.sockopts.pop(zmq.SNDHWM, None)
        thread = self.iopub_thread
        thread.schedule(lambda: thread.socket.setsockopt(zmq.XPUB_NODROP, 1))
        hold_back(thread)

    def log_connection_info(self):
        """Says nothing: what a kernel writes outside the protocol explains its end, and
        this advice for terminals would hide it."""

    def init_shell(self):
        super().init_shell()
        forget_outputs(self.shell)
        formatters.install(self.shell.display_formatter)
        pillow.install()


class Forgetful(dict):
    """Gives a new list for every key and keeps none."""

    def __missing__(self, key):
        return []


def forget_outputs(shell):
    """Keeps no copy of what cells print and show.

    IPython from version 9.1 on keeps all of it for `%notebook`, so that a kernel would grow
    with everything that it ever printed.
    """
    shell._tee = lambda channel: contextlib.nullcontext()
    shell.history_manager.outputs = Forgetful()


def hold_back(thread):
    """Makes threads that publish wait while much is unsent."""
    import threading
    import time

    schedule = thread.schedule

    def patiently(f):
        if threading.current_thread() is not thread.thread:
            while len(thread._events) > WAITING_MESSAGES and thread.thread.is_alive():
                time.sleep(0.002)
        schedule(f)

    thread.schedule = patiently
