"""Checks that pyright reports each line of mistakes.py that is marked as an error, and no other.

usage: python tests/typing/check_mistakes.py [arguments of pyright]
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def marked(text: str) -> set[tuple[int, str]]:
    """`(line, rule)` of each rule in a comment `# error: rule, rule`; lines count from 1."""
    return {
        (number, rule)
        for number, line in enumerate(text.splitlines(), 1)
        if (found := re.search(r"# error: (\w+(?:, \w+)*)$", line))
        for rule in found[1].split(", ")
    }


def reported(arguments: list[str]) -> tuple[set[tuple[int, str]], dict[int, str]]:
    """`(line, rule)` of each error that pyright reports, and the message for each line."""
    command = [sys.executable, "-m", "pyright", "--project", str(HERE), "--outputjson", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):  # 1: there are errors
        raise SystemExit(run.stdout + run.stderr)
    errors = [
        (one["range"]["start"]["line"] + 1, one.get("rule", "syntax"), one["message"])
        for one in json.loads(run.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    ]
    return {(line, rule) for line, rule, _ in errors}, {line: text for line, _, text in errors}


def main(arguments: list[str]) -> int:
    """Prints each difference, then how many of the marked lines are reported."""
    text = (HERE / "mistakes.py").read_text("utf-8")
    expected = marked(text)
    found, messages = reported(arguments)
    for line, rule in sorted(expected - found):
        code = text.splitlines()[line - 1].split("  # error")[0].strip()
        print(f"mistakes.py:{line}: pyright does not report {rule}: {code}")
    for line, rule in sorted(found - expected):
        print(f"mistakes.py:{line}: {rule} is not expected: {messages[line]}")
    lines, missed = {line for line, _ in expected}, {line for line, _ in expected - found}
    print(f"{len(lines - missed)} of {len(lines)} mistakes are reported")
    return int(found != expected)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
