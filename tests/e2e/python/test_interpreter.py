"""The code interpreter through the official Python clients."""

import base64

import pytest
from e2b import NotFoundException

from support import env
from support.clients import CLIENTS

pytestmark = pytest.mark.timeout(180)
LANGUAGES = ["python", "javascript", "bash", "r", "java"]


@pytest.fixture(scope="module", params=CLIENTS)
def client(request):
    """Each of the clients."""
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def box(client):
    """A sandbox that the tests of this module share."""
    box = client.create(timeout=900, envs={"GLOBAL": "it's \"g\" $HOME\nä 中"})
    yield box
    box.kill()


def raw(box, method, path, **options):
    """A request to the interpreter without its client."""
    headers = {
        "e2b-sandbox-id": box.sandbox_id,
        "e2b-sandbox-port": "49999",
        "x-access-token": box._envd_access_token or "",
    }
    with env.client(env.SANDBOX_URL, headers=headers) as client:
        return client.request(method, path, timeout=60, **options)


def printed(execution):
    assert execution.error is None, execution.error
    return "".join(execution.logs.stdout)


# --- cells


def test_a_result_is_main_and_state_survives(box, client):
    execution = box.run_code("x = 1; x")
    assert execution.text == "1"
    assert len(execution.results) == 1 and execution.results[0].is_main_result
    box.run_code("x += 1")
    other = client.connect(box.sandbox_id)
    assert other.run_code("x").text == "2"


def test_output_keeps_its_newlines_and_stream(box):
    seen = []
    execution = box.run_code("print('a')", on_stdout=seen.append)
    assert execution.logs.stdout == ["a\n"] and [m.line for m in seen] == ["a\n"]
    assert not seen[0].error and seen[0].timestamp
    seen = []
    execution = box.run_code("import sys; print('e', file=sys.stderr)", on_stderr=seen.append)
    assert "".join(execution.logs.stderr) == "e\n" and seen[0].error


def test_errors_are_told_once_and_end_nothing(box):
    seen = []
    execution = box.run_code("xyz", on_error=seen.append)
    assert execution.error.name == "NameError" and "xyz" in execution.error.value
    assert len(seen) == 1
    assert box.run_code("x = = 1").error.name == "SyntaxError"
    execution = box.run_code("def f():\n  def g():\n    raise ValueError('v')\n  g()\nf()")
    assert execution.error.name == "ValueError"
    assert "in f()" in execution.error.traceback and "g()" in execution.error.traceback
    assert "\x1b[" not in execution.error.traceback
    assert box.run_code("1").text == "1"


def test_executions_are_counted_per_context(box):
    context = box.create_code_context()
    counts = [box.run_code(code, context=context).execution_count for code in ("1", "oops", "2")]
    assert counts == [1, 2, 3]


def test_output_arrives_as_it_is_printed(box):
    # The cell goes on only once its first line has been here.
    seen = []

    def take(message):
        seen.append(message.line)
        if message.line == "first\n":
            box.files.write("/tmp/heard", "")

    code = """
import os, time
print("first", flush=True)
while not os.path.exists("/tmp/heard"):
    time.sleep(0.01)
print("second")
"""
    assert box.run_code(code, on_stdout=take, timeout=60).error is None
    assert seen == ["first\n", "second\n"]


def test_a_flood_of_output_is_complete_and_in_order(box):
    code = "for i in range(100_000):\n  print(f'{i:06d}' + 'x' * 993)\nprint('end')"
    execution = box.run_code(code, timeout=120)
    *lines, end = printed(execution).splitlines()
    lost = (n for n, line in enumerate(lines) if line != f"{n:06d}" + "x" * 993)
    assert (len(lines), next(lost, None), end) == (100_000, None, "end")
    # Whoever keeps the output somewhere on its way grows by it.
    show = "for p in $(pgrep -x interpreter); do grep VmHWM /proc/$p/status; done"
    peak = int(box.commands.run(show, user="root").stdout.split()[1])
    kernel = int(box.run_code("import resource; resource.getrusage(0).ru_maxrss").text)
    assert peak < 32 << 10, "KiB in the service"
    assert kernel < 400 << 10, "KiB in the kernel"


def test_top_level_await_shell_lines_and_indented_cells(box):
    assert box.run_code("import asyncio\nawait asyncio.sleep(0.01, 'slept')").text == "slept"
    assert printed(box.run_code("!pwd")).strip() == "/home/user"
    assert box.run_code("  y = 5\n  y").text == "5"


# --- results


def formats(result):
    return sorted(result.formats())


def test_figures_are_pictures_with_charts(box):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [4, 5, float('nan')])\nplt.title('T')\nplt.show()"
    execution = box.run_code(code + "\n'last'")
    figure, last = execution.results
    assert figure.png and figure.text and figure.chart and not figure.extra
    assert not figure.is_main_result and last.is_main_result and last.text == "last"
    assert figure.chart.type.value == "line" and figure.chart.title == "T"
    assert figure.chart.elements[0].points[0] == [1.0, 4.0] or tuple(
        figure.chart.elements[0].points[0]
    ) == (1.0, 4.0)


CHARTS = {
    "line": "ax.plot([1, 2], [3, 4], label='l')",
    "scatter": "ax.scatter([1, 2], [3, 4], label='s')",
    "bar": "ax.bar(['a', 'b'], [1, 2], label='g')",
    "pie": "ax.pie([1, 3], labels=['a', 'b'])",
    # The package that reads charts can't read a figure of a single box.
    "box_and_whisker": (
        "ax.boxplot([[1, 2, 3, 4, 5, 99], [70, 65, 60, 75]], patch_artist=True,"
        " tick_labels=['q', 'r'])"
    ),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_charts_of_every_kind(box, kind):
    labels = "ax.set_title('T'); ax.set_xlabel('x (s)'); ax.set_ylabel('y (m)')"
    code = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n"
    chart = box.run_code(f"{code}{CHARTS[kind]}\n{labels}\nplt.show()").results[0].chart
    assert chart.type.value == kind and chart.title == "T"
    if kind != "pie":
        assert (chart.x_label, chart.x_unit) == ("x (s)", "s")
        assert (chart.y_label, chart.y_unit) == ("y (m)", "m")
    first = chart.elements[0]
    if kind in {"line", "scatter"}:
        assert first.label == kind[0] and [list(p) for p in first.points] == [[1, 3], [2, 4]]
        assert chart.x_scale.value == chart.y_scale.value == "linear"
    elif kind == "bar":
        assert [(e.label, float(e.value)) for e in chart.elements] == [("a", 1), ("b", 2)]
        assert first.group == "g"
    elif kind == "pie":
        assert [(e.label, round(e.angle)) for e in chart.elements] == [("a", 90), ("b", 270)]
        assert first.radius == 1
    else:
        assert first.label == "q" and (first.min, first.median, first.max) == (1, 3.5, 5)
        assert (first.first_quartile, first.third_quartile) == (2.25, 4.75)
        assert list(first.outliers) == [99]


def test_scales_several_axes_and_blank_figures(box):
    start = "import matplotlib.pyplot as plt, datetime\n"
    code = "plt.plot([datetime.date(2024, 1, d) for d in (1, 2)], [1, 10])\nplt.yscale('log')\nplt.show()"
    chart = box.run_code(start + code).results[0].chart
    assert chart.x_scale.value == "datetime" and chart.y_scale.value == "log"
    code = "fig, (a, b) = plt.subplots(1, 2)\na.plot([1, 2])\nb.bar([1], [2])\nplt.show()"
    chart = box.run_code(start + code).results[0].chart
    assert chart.type.value == "superchart" and len(chart.elements) == 2
    result = box.run_code(start + "plt.figure(); plt.show()").results[0]
    assert not result.chart or not getattr(result.chart, "elements", None)


def test_tables_come_with_their_data(box):
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2], 't': pd.to_datetime(['2024-01-01', '2024-01-02'])})"
    result = box.run_code(code).results[0]
    assert result.html and result.text and result.is_main_result
    assert result.data["a"] == [1, 2] and result.data["t"][0].startswith("2024-01-01T00:00:00")


CUSTOM = """
class Custom:
    def __repr__(self): return 'a custom object'
    def _repr_html_(self): return '<b>h</b>'
    def _repr_markdown_(self): return '**m**'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'png'
    def _repr_jpeg_(self): return b'jpeg'
    def _repr_latex_(self): return '$l$'
    def _repr_json_(self): return {'j': [1]}
    def _repr_javascript_(self): return 'js()'
    def _repr_pdf_(self): return b'pdf'
    def _repr_e2b_data_(self): return {'column': [1, 2]}
    def _repr_e2b_chart_(self):
        return {'type': 'pie', 'title': 'T', 'elements': [{'label': 'a', 'angle': 360, 'radius': 1}]}
"""


def test_objects_choose_their_own_forms(box):
    result = box.run_code(CUSTOM + "Custom()").results[0]
    assert result.is_main_result and result.text == "a custom object"
    assert result.data == {"column": [1, 2]} and result.json == {"j": [1]}
    assert (result.html, result.markdown, result.svg) == ("<b>h</b>", "**m**", "<svg/>")
    assert (result.latex, result.javascript) == ("$l$", "js()")
    encoded = [base64.b64decode(form) for form in (result.png, result.jpeg, result.pdf)]
    assert encoded == [b"png", b"jpeg", b"pdf"]
    assert result.chart.type.value == "pie" and result.chart.title == "T"
    pieces = [(each.label, each.angle, each.radius) for each in result.chart.elements]
    assert pieces == [("a", 360, 1)] and not result.extra


def test_forms_of_figures_and_tables_are_replaced_by_their_own(box):
    code = """
import matplotlib.figure, pandas
class Figure(matplotlib.figure.Figure):
    def _repr_e2b_chart_(self):
        return {'type': 'unknown', 'title': 'mine', 'elements': []}
class Table(pandas.DataFrame):
    def _repr_e2b_data_(self): return {'mine': [1]}
display(Figure())
Table({'a': [2]})
"""
    figure, table = box.run_code(code).results
    assert figure.chart.title == "mine" and table.data == {"mine": [1]}


def test_an_object_whose_forms_fail_is_told_and_shown_otherwise(box):
    code = """
class Odd:
    def __repr__(self): return 'odd'
    def _repr_e2b_data_(self): raise ValueError('no data')
    def _repr_e2b_chart_(self): return 'no chart'
Odd()
"""
    execution = box.run_code(code)
    result = execution.results[0]
    assert (result.text, result.data, result.chart) == ("odd", None, None)
    assert (execution.error.name, execution.error.value) == ("ValueError", "no data")
    assert "e2b/chart" in "".join(execution.logs.stderr)


def test_a_bundle_names_its_formats(box):
    code = """
class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/plain': 'b', 'e2b/data': {'c': [1]}, 'application/x-own': {'k': 1}}
Bundle()
"""
    result = box.run_code(code).results[0]
    assert (result.text, result.data) == ("b", {"c": [1]})
    assert result.extra == {"application/x-own": {"k": 1}}


def test_structures_and_long_lists(box):
    result = box.run_code("{'a': [1, {'b': None}]}").results[0]
    assert result.json == {"a": [1, {"b": None}]} and "'a'" in result.text
    text = box.run_code("list(range(5000))").text
    assert "..." not in text and "4999" in text


def test_displays_of_every_format(box):
    code = "from IPython.display import display\ndisplay({%r: 'x'}, raw=True)"
    for mime, name in {
        "text/latex": "latex",
        "text/markdown": "markdown",
        "image/svg+xml": "svg",
        "application/javascript": "javascript",
        "application/pdf": "pdf",
        "image/jpeg": "jpeg",
    }.items():
        result = box.run_code(code % mime).results[0]
        assert getattr(result, name) == "x" and formats(result) == [name], mime
    result = box.run_code(code % "application/x-own").results[0]
    assert result.extra == {"application/x-own": "x"}


def test_plotting_libraries_give_html_and_pillow_shows_what_it_saves(box):
    code = "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1]))"
    assert box.run_code(code).results[0].html
    code = "from bokeh.io import output_notebook, show\nfrom bokeh.plotting import figure\n"
    code += "output_notebook(hide_banner=True)\np = figure()\np.line([1, 2], [3, 4])\nshow(p)"
    assert any(result.html for result in box.run_code(code).results)
    code = "from PIL import Image\nImage.new('RGB', (2, 2)).save('/tmp/p.png')"
    assert box.run_code(code).results[0].png
    assert box.files.exists("/tmp/p.png")


# --- contexts


def test_the_list_of_contexts(box):
    assert {"python", "javascript"} <= {c.language for c in box.list_code_contexts()}
    made = box.create_code_context(language="python", cwd="/tmp")
    last = box.list_code_contexts()[-1]
    assert (last.id, last.language, last.cwd) == (made.id, "python", "/tmp")
    assert printed(box.run_code("import os; print(os.getcwd())", context=made)) == "/tmp\n"
    box.run_code("only_here = 1", context=made)
    assert box.run_code("only_here").error.name == "NameError"
    box.restart_code_context(made)
    assert box.run_code("only_here", context=made).error.name == "NameError"
    assert printed(box.run_code("import os; print(os.getcwd())", context=made)) == "/tmp\n"
    box.remove_code_context(made)
    assert made.id not in [c.id for c in box.list_code_contexts()]
    with pytest.raises(NotFoundException):
        box.run_code("1", context=made)


def test_refusals(box):
    context = box.list_code_contexts()[0]
    with pytest.raises(Exception, match="context|language"):
        box.run_code("1", language="python", context=context)
    answer = raw(box, "POST", "/execute", json={"code": "1", "language": "python", "context_id": context.id})
    assert answer.status_code == 400
    assert answer.text == "Only one of context_id or language can be provided"
    answer = raw(box, "POST", "/execute", json={"code": "1", "context_id": "nope"})
    assert (answer.status_code, answer.text) == (404, "Context ID not found")
    answer = raw(box, "POST", "/execute", json={"code": "1", "language": "cobol"})
    assert answer.status_code == 500 and "cobol" in answer.text


# --- languages

HELLO = {
    "python": "print('Hello, World!')",
    "javascript": "console.log('Hello, World!')",
    "typescript": "const s: string = 'Hello, World!'; console.log(s)",
    "bash": "echo 'Hello, World!'",
    "r": "cat('Hello, World!\\n')",
    "java": 'System.out.println("Hello, World!");',
}
CWD = {
    "python": "import os; print(os.getcwd())",
    "javascript": "console.log(process.cwd())",
    "bash": "pwd",
    "r": "cat(getwd(), '\\n')",
    "java": 'System.out.println(System.getProperty("user.dir"));',
}
SHOW = {
    "python": "import os; print(os.environ.get('{0}', ''))",
    "javascript": "console.log(process.env['{0}'] ?? '')",
    "bash": 'printf "%s\\n" "${0}"',
    "r": "cat(Sys.getenv('{0}'), '\\n', sep='')",
    "java": 'System.out.println(java.util.Objects.toString(System.getProperty("{0}"), ""));',
}


@pytest.mark.parametrize("language", HELLO)
def test_every_language_says_hello(box, language):
    assert printed(box.run_code(HELLO[language], language=language)) == "Hello, World!\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_starts_at_home(box, language):
    assert printed(box.run_code(CWD[language], language=language)).strip() == "/home/user"


@pytest.mark.parametrize("language", LANGUAGES)
def test_variables_are_seen_overridden_and_restored(box, language):
    show = lambda name, **options: printed(
        box.run_code(SHOW[language].replace("{0}", name), language=language, **options)
    )
    glob = "it's \"g\" $HOME\nä 中\n"
    assert show("GLOBAL") == glob
    odd = "q'\"`$X\\n\nnew ✓"
    assert show("GLOBAL", envs={"GLOBAL": odd}) == odd + "\n"
    assert show("GLOBAL") == glob
    assert show("ONCE", envs={"ONCE": "1"}) == "1\n"
    assert show("ONCE") == "\n"


def test_javascript_and_r_values(box):
    code = "import { basename } from 'node:path'\nconst v = await Promise.resolve(basename('/a/b'))\nv"
    assert box.run_code(code, language="js").text == "b"
    assert printed(box.run_code('print("Hello, World!")', language="r")) == '[1] "Hello, World!"\n'
    assert box.run_code("1 + 1", language="java").text == "2"


def test_variables_leave_line_numbers_alone(box):
    plain = box.run_code("a = 1\nraise ValueError()").error.traceback
    with_vars = box.run_code("a = 1\nraise ValueError()", envs={"A": "1", "B": "2"}).error.traceback
    assert "line 2" in plain and "line 2" in with_vars
