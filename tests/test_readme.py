"""Every ```python block of README.md and docs/ runs, each in a namespace and folder of its own.

A block that cannot run says why in a comment right above it: `<!-- not run: it needs a bucket -->`.
"""

from __future__ import annotations

import doctest
import linecache
import pathlib
import re
import sys
import types
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()
]
BLOCK = re.compile(
    r"^(?:<!--\s*not run:\s*(?P<reason>.*?)\s*-->[ \t]*\n\s*)?"
    r"^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^[ \t]*```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


def blocks_of(text: str) -> Iterator[tuple[int, str, str | None]]:
    """`(line, code, reason not to run)` of each block; the line is that of the first code line."""
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        indent = re.compile(f"^{found['indent']}", re.MULTILINE)
        yield line, indent.sub("", found["code"]), found["reason"]


def run_block(code: str, *, page: str, line: int, name: str = "__page__") -> None:
    """Runs a block; prompts in it make it a doctest. Errors show the line of the page."""
    namespace = types.ModuleType(name)
    sys.modules[name] = namespace  # dataclasses and type hints look their module up
    try:
        if re.search(r"^>>> ", code, re.MULTILINE):
            test = doctest.DocTestParser().get_doctest(code, namespace.__dict__, page, page, line)
            report: list[str] = []
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
            runner.run(test, out=report.append)
            assert not report, "".join(report)
        else:
            padded = "\n" * (line - 1) + code
            filename = f"<{page}:{line}>"
            linecache.cache[filename] = (len(padded), None, padded.splitlines(True), filename)
            exec(compile(padded, filename, "exec"), namespace.__dict__)  # our own pages
    finally:
        del sys.modules[name]


CASES = [
    pytest.param(
        page.relative_to(ROOT).as_posix(),
        line,
        code,
        id=f"{page.relative_to(ROOT).as_posix()}:{line}",
        marks=[] if reason is None else pytest.mark.skip(reason=f"not run: {reason}"),
    )
    for page in PAGES
    for line, code, reason in blocks_of(page.read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "line", "code"), CASES)
def test_block_runs(
    page: str, line: int, code: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_block(code, page=page, line=line)


SAMPLE = """\
Text.

```python
x = 1
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
    assert list(blocks_of(SAMPLE)) == [
        (4, "x = 1\n", None),
        (9, "open_bucket()\n", "needs a bucket"),
        (14, "if True:\n    y = 2\n", None),
    ]


def test_a_failing_block_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_block("x = 1\n1 / 0\n", page="README.md", line=10)
    assert caught.traceback[-1].lineno == 10  # counted from zero: line 11 of the page


def test_a_wrong_prompt_fails() -> None:
    run_block(">>> 1 + 1\n2\n", page="README.md", line=1)
    with pytest.raises(AssertionError, match="Expected"):
        run_block(">>> 1 + 1\n3\n", page="README.md", line=1)


def test_a_dataclass_finds_its_module() -> None:
    source = "from __future__ import annotations\nimport dataclasses, typing\n"
    source += "@dataclasses.dataclass\nclass A:\n    x: typing.ClassVar[int] = 1\n"
    run_block(source, page="README.md", line=1)
