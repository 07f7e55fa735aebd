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
