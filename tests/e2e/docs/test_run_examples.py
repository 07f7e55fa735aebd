"""The reader of the documentation's examples, on documents made for it."""

from pathlib import Path

import pytest
from run_examples import MalformedDocument, examples, run

TEXT = """
```python
print(1)
```

<!-- not-run: needs a second machine -->

```bash
exit 9
```

Text. <!-- a comment -->
```sh title="x"
true
```

1. Item

   ````js
   const a = `
   ```
   `
   ````

```rust
fn main() {}
```
"""


def test_blocks_are_found_with_their_reasons():
    found = examples(Path("x.md"), TEXT)
    assert [(e.language, e.not_run) for e in found] == [
        ("python", None),
        ("bash", "needs a second machine"),
        ("bash", None),
        ("js", None),
    ]
    assert found[3].code == "const a = `\n```\n`\n"
    assert found[0].line == 2


def test_a_fence_without_end_is_an_error():
    with pytest.raises(MalformedDocument):
        examples(Path("x.md"), "```python\nprint(1)\n")


@pytest.mark.parametrize(
    "block,fails",
    [
        ("```bash\nfalse | true\n```", True),
        ("```bash\necho $UNSET_VARIABLE\n```", True),
        ("```sh\ntest 1 = 1\n```", False),
        ("```python\nraise SystemExit(2)\n```", True),
        ("```js\nawait Promise.resolve()\n```", False),
        ("```js\nthrow new Error('x')\n```", True),
    ],
)
def test_the_exit_code_decides(tmp_path, block, fails):
    (example,) = examples(Path("x.md"), block)
    assert bool(run(example, tmp_path)) is fails
