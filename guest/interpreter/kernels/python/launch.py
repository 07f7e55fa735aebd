"""Starts the Python kernel of code-interpreter sandboxes."""

import sys


def without(*names):
    """Makes modules look missing while ours load: a debugger and a completer that no
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
    for name in hidden:
        del sys.modules[name]
    KernelApp.launch_instance(config=config())


if __name__ == "__main__":
    main()
