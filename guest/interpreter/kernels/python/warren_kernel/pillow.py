"""Images that are saved to a file are shown as well."""

import importlib.abc
import importlib.util
import os
import sys

MODULE = "PIL.Image"


def install():
    """Waits for Pillow to be imported."""
    if MODULE in sys.modules:
        show_on_save(sys.modules[MODULE])
    else:
        sys.meta_path.insert(0, Finder())


class Finder(importlib.abc.MetaPathFinder):
    """Finds Pillow as the others do, once, and changes it when it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                show_on_save(module)

            spec.loader.exec_module = exec_module
        return spec


def show_on_save(module):
    """Makes `Image.save` show an image that a cell saves to a path."""
    save = module.Image.save

    def save_and_show(self, fp, format=None, **params):
        save(self, fp, format, **params)
        # Figures that matplotlib saves come through here too, and are shown by themselves.
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if isinstance(fp, (str, bytes, os.PathLike)) and not caller.startswith("matplotlib"):
            from IPython.display import display

            display(self)

    save_and_show.__doc__ = save.__doc__
    module.Image.save = save_and_show
