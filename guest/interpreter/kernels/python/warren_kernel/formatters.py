"""Results in more forms than IPython has.

Types of other libraries are named, not imported: only a cell that uses a library pays for it.
"""

import datetime
import decimal
import enum
import math
import uuid

from IPython.core.formatters import BaseFormatter
from IPython.utils.dir2 import get_real_method
from traitlets import ObjectName, Unicode


class OwnFirst(BaseFormatter):
    """Asks an object for its form before what is known of its type."""

    def lookup(self, obj):
        if get_real_method(obj, self.print_method) is not None:
            raise KeyError(type(obj))
        return super().lookup(obj)


class DataFormatter(OwnFirst):
    """Tables by column."""

    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = dict


class ChartFormatter(OwnFirst):
    """What a figure shows."""

    format_type = Unicode("e2b/chart")
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = dict

    def pop(self, typ, *default):
        """Keeps the printer of figures: whoever chooses how figures are drawn removes
        those of all other formatters, whatever they are for."""
        return self.type_printers.get(typ) if default else super().pop(typ)


def install(display):
    """Adds the forms to a shell's display formatter."""
    for formatter in (DataFormatter(parent=display), ChartFormatter(parent=display)):
        display.formatters[formatter.format_type] = formatter
    data = display.formatters["e2b/data"]
    # The module that the class names, in versions 2 and 3.
    data.for_type_by_name("pandas.core.frame", "DataFrame", table)
    data.for_type_by_name("pandas", "DataFrame", table)
    display.formatters["e2b/chart"].for_type_by_name("matplotlib.figure", "Figure", chart)
    json = display.formatters["application/json"]
    json.for_type(dict, json_or_none)
    json.for_type(list, json_or_none)


def table(frame):
    """A data frame's columns as lists."""
    return jsonable(frame.to_dict(orient="list"))


def chart(figure):
    """A figure's chart; empty if it has none that is understood."""
    try:
        from e2b_charts import chart_figure_to_dict

        return jsonable(chart_figure_to_dict(figure)) or {}
    except Exception:
        return {}


def json_or_none(value):
    """A list or dictionary as JSON can hold it, or nothing."""
    try:
        return jsonable(value)
    except (TypeError, ValueError, RecursionError):
        return None


def jsonable(value):
    """Replaces what JSON can't hold.

    Raises TypeError for values that have no such form.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, enum.Enum):
        return jsonable(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        # A missing time is a time to Python, and not equal to itself.
        return value.isoformat() if value == value else None
    if isinstance(value, (decimal.Decimal, uuid.UUID, datetime.timedelta)):
        return str(value)
    if type(value).__module__.partition(".")[0] in ("numpy", "pandas"):
        return foreign(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def foreign(value):
    """Values of numpy and pandas."""
    if type(value).__name__ in ("datetime64", "timedelta64"):
        text = str(value)
        return None if text == "NaT" else text
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)


def key(value):
    """A dictionary's key as text."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, float)):
        return {None: "null", True: "true", False: "false"}.get(value, str(value))
    plain = jsonable(value) if not isinstance(value, tuple) else str(value)
    return plain if isinstance(plain, str) else str(plain)
