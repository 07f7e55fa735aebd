"""Starts the Python kernel of code-interpreter sandboxes."""

import sys


def without(*names):
    """Makes modules look missing while the kernel starts: a debugger and a completer that no
    client of this kernel can reach, at a quarter of its start time and memory."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None
    return hidden


def main():
    # The directory of this file is for our own imports only.
    own = sys.path.pop(0)
    hidden = without("debugpy", "jedi")
    sys.path.append(own)
    from warren_kernel.app import KernelApp, config

    sys.path.remove(own)
    app = KernelApp.instance(config=config())
    app.initialize()
    for name in hidden:
        del sys.modules[name]
    app.start()


if __name__ == "__main__":
    main()
