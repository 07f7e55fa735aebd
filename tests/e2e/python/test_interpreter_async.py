"""The code interpreter through the official asynchronous client."""

import asyncio

import pytest
from e2b import NotFoundException, TimeoutException
from e2b_code_interpreter import AsyncSandbox

pytestmark = pytest.mark.timeout(120)


async def test_a_whole_life():
    box = await AsyncSandbox.create(timeout=300, envs={"A": "1"}, metadata={"m": "v"})
    try:
        assert (await box.run_code("x = 2; x")).text == "2"
        lines = []

        async def keep(message):
            lines.append(message.line)

        await box.run_code("import os\nprint(os.environ['A'])", on_stdout=keep)
        assert lines == ["1\n"]
        execution = await box.run_code("1 / 0")
        assert execution.error.name == "ZeroDivisionError"
        context = await box.create_code_context(cwd="/tmp")
        await box.run_code("y = 1", context=context)
        both = await asyncio.gather(
            box.run_code("import time; time.sleep(0.5); 'a'"),
            box.run_code("'b'", context=context),
        )
        assert [e.text for e in both] == ["a", "b"]
        await box.restart_code_context(context)
        assert (await box.run_code("y", context=context)).error.name == "NameError"
        assert (await box.list_code_contexts())[-1].id == context.id
        await box.remove_code_context(context)
        with pytest.raises(NotFoundException):
            await box.run_code("1", context=context)
        with pytest.raises(TimeoutException):
            await box.run_code("import time; time.sleep(60)", timeout=1)
        assert (await box.run_code("x", timeout=20)).text == "2"
    finally:
        await box.kill()


async def test_displays_languages_and_refusals():
    box = await AsyncSandbox.create(timeout=300)
    try:
        plot = "import matplotlib.pyplot as plt\nplt.bar(['a'], [1])\nplt.show()\n'last'"
        figure, last = (await box.run_code(plot)).results
        assert figure.png and figure.chart.type.value == "bar" and last.is_main_result
        table = await box.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
        assert table.results[0].data == {"a": [1, 2]} and table.results[0].html
        assert (await box.run_code("{'k': [1]}")).results[0].json == {"k": [1]}
        cells = {
            "javascript": "console.log('hi')",
            "typescript": "const s: string = 'hi'; console.log(s)",
            "bash": "echo hi",
            "r": "cat('hi\\n')",
        }
        for language, code in cells.items():
            execution = await box.run_code(code, language=language)
            assert execution.error is None and execution.logs.stdout == ["hi\n"], language
        shown = await box.run_code("import os; os.environ.get('B')", envs={"B": "it's\n✓"})
        assert shown.text == r"it's\n✓"
        assert (await box.run_code("'B' in os.environ")).text == "False"
        with pytest.raises(Exception, match="cobol"):
            await box.run_code("1", language="cobol")
    finally:
        await box.kill()


async def test_trouble_and_pauses():
    box = await AsyncSandbox.create(timeout=300)
    try:
        killed = await box.run_code("import os; os.kill(os.getpid(), 9)")
        assert killed.error.value == "Context was restarted: the kernel was killed"
        await box.run_code("x = [1]")
        # A task that is cancelled closes its connection, as a client that vanishes.
        cell = asyncio.create_task(box.run_code("import time; time.sleep(300)"))
        await asyncio.sleep(0.5)
        cell.cancel()
        assert (await box.run_code("x", timeout=20)).text == "[1]"
        assert await box.pause()
        again = await AsyncSandbox.connect(box.sandbox_id)
        assert (await again.run_code("x")).text == "[1]"
        contexts = await asyncio.gather(*(again.create_code_context() for _ in range(5)))
        cells = [again.run_code(f"{n}", context=contexts[n % 5]) for n in range(25)]
        assert [e.text for e in await asyncio.gather(*cells)] == [str(n) for n in range(25)]
        end = asyncio.create_task(again.run_code("import time; time.sleep(60)"))
        await asyncio.sleep(0.5)
        await again.kill()
        with pytest.raises(TimeoutException, match="killed"):
            await end
    finally:
        await box.kill()
