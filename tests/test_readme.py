"""Every ```python block of README.md and docs/ runs, in a folder of its own.

Each has its own namespace, unless the comment `<!-- continues -->` right above it says that it goes
on in that of the block before it. A block that cannot run says why in a comment in the same place:
`<!-- not run: it needs a bucket -->`.
"""

from __future__ import annotations

import doctest
import linecache
import pathlib
import re
import sys
import types
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()
]
BLOCK = re.compile(
    r"^(?:<!--\s*(?:not run:\s*(?P<reason>.*?)|(?P<continues>continues))\s*-->[ \t]*\n\s*)?"
    r"^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^[ \t]*```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code on a page.

    Attributes:
        line: the line of its first line of code.
        code: its code, without indentation.
        reason: why it is not run; None if it is.
        continues: whether it runs in the namespace of the block before it.
    """

    line: int
    code: str
    reason: str | None = None
    continues: bool = False


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a page."""
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        indent = re.compile(f"^{found['indent']}", re.MULTILINE)
        code = indent.sub("", found["code"])
        yield Block(line, code, found["reason"], found["continues"] is not None)


def programs_of(text: str) -> list[list[Block]]:
    """The blocks of a page, those that share a namespace together."""
    programs: list[list[Block]] = []
    for block in blocks_of(text):
        if block.continues:
            programs[-1].append(block)
        else:
            programs.append([block])
    return programs


def run(blocks: Sequence[Block], *, page: str, name: str = "__page__") -> None:
    """Runs blocks in one namespace; errors show the line of the page."""
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        for block in blocks:
            _run_block(block, page, module)
    finally:
        del sys.modules[name]


def _run_block(block: Block, page: str, module: types.ModuleType) -> None:
    """Runs one block; prompts in it make it a doctest."""
    if re.search(r"^>>> ", block.code, re.MULTILINE):
        parser = doctest.DocTestParser()
        test = parser.get_doctest(block.code, module.__dict__, page, page, block.line)
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=report.append, clear_globs=False)
        module.__dict__.update(test.globs)  # a DocTest runs in a copy
        assert not report, "".join(report)
    else:
        padded = "\n" * (block.line - 1) + block.code
        filename = f"<{page}:{block.line}>"
        linecache.cache[filename] = (len(padded), None, padded.splitlines(True), filename)
        exec(compile(padded, filename, "exec"), module.__dict__)  # our own pages


CASES = [
    pytest.param(
        page.relative_to(ROOT).as_posix(),
        program,
        id=f"{page.relative_to(ROOT).as_posix()}:{program[0].line}",
        marks=[
            pytest.mark.skip(reason=f"not run: {block.reason}")
            for block in program
            if block.reason is not None
        ],
    )
    for page in PAGES
    for program in programs_of(page.read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "program"), CASES)
def test_block_runs(
    page: str, program: list[Block], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(program, page=page)


SAMPLE = """\
Text.

```python
x = 1
```

<!-- continues -->
```python
assert x == 1
```

<!-- not run: needs a bucket -->
```python
open_bucket()
```

- a list
  ```python
  if True:
      y = 2
  ```

```bash
exit 1
```
"""


def test_blocks_are_found() -> None:
    assert programs_of(SAMPLE) == [
        [Block(4, "x = 1\n"), Block(9, "assert x == 1\n", continues=True)],
        [Block(14, "open_bucket()\n", "needs a bucket")],
        [Block(19, "if True:\n    y = 2\n")],
    ]


def test_a_failing_block_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run([Block(10, "x = 1\n1 / 0\n")], page="README.md")
    assert caught.traceback[-1].lineno == 10  # counted from zero: line 11 of the page


def test_a_wrong_prompt_fails() -> None:
    run([Block(1, ">>> 1 + 1\n2\n")], page="README.md")
    with pytest.raises(AssertionError, match="Expected"):
        run([Block(1, ">>> 1 + 1\n3\n")], page="README.md")


@pytest.mark.parametrize("first", ["x = 1\n", ">>> x = 1\n"])
def test_a_block_that_continues_has_the_names_of_the_block_before(first: str) -> None:
    run([Block(1, first), Block(2, ">>> x\n1\n"), Block(4, "assert x == 1\n")], page="README.md")


def test_a_dataclass_finds_its_module() -> None:
    source = "from __future__ import annotations\nimport dataclasses, typing\n"
    source += "@dataclasses.dataclass\nclass A:\n    x: typing.ClassVar[int] = 1\n"
    run([Block(1, source)], page="README.md")
