"""Turns the asyncio half of distilface_client into the blocking half: the same code without waiting.

What cannot be turned (how tasks wait, and how threads do) is written by hand, in both forms, in _concurrency.py. The
results are committed, and a test compares them. Run this after a change of a source, with ruff installed:

    python generate_blocking.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent / "distilface_client"
# The blocking file that is made of each asyncio file.
TARGETS = {"aio.py": "client.py", "_aio_transport.py": "_transport.py"}
HEAD = '"""{what}\n\nIt is made from {source} by generate_blocking.py, not edited by hand.\n"""\n'
WHAT = {
    "client.py": "Offers every call of the server to blocking code.",
    "_transport.py": "Sends calls for the blocking client.",
}
# Each must be found in some source.
REPLACED = [
    # A result that needs no brackets any more where it was awaited in the middle of an expression.
    (r"(?<!\w)\(await ((?:self|client)\.\w+\([^()]*(?:\([^()]*\)[^()]*)*\))\)(?=\.)", r"\1"),
    (r"\basync (?=(?:def|for|with)\b)", ""),
    (r"\bawait ", ""),
    (r"\banext\b", "next"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\b_aio_transport\b", "_transport"),
    (r"\b(?:Async|async_)(?=\w)", ""),
    # What docstrings say of one half alone.
    (r"for one event loop(?=; close it)", "that threads may share"),
    (r"an iterable, or an asynchronous one, of any length", "an iterable of any length, read in this thread"),
]
# What is left of asyncio is not turned by the rules above.
LEFT = re.compile(r"\b(async|await|asyncio|asynchronous|aio|aiter|event loop)\b")


def ruff(*arguments: str, text: str) -> str:
    """Passes a source text through ruff."""
    command = [sys.executable, "-m", "ruff", *arguments, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def blocking() -> dict[str, str]:
    """Makes the sources of the blocking files, by name."""
    made = {}
    unused = {pattern for pattern, _ in REPLACED}
    for source, target in TARGETS.items():
        text = (PACKAGE / source).read_text(encoding="utf-8")
        _, _, text = text.partition('"""\n')
        for pattern, replacement in REPLACED:
            text, found = re.subn(pattern, replacement, text)
            if found:
                unused.discard(pattern)
        if left := LEFT.search(text):
            sys.exit(f"{source}: `{left[0]}` has no blocking form; put it into _concurrency.py")
        text = HEAD.format(what=WHAT[target], source=source) + text
        name = f"--stdin-filename={PACKAGE / target}"
        # Imports are in another order under their new names, and a loop that only yields is `yield from`.
        text = ruff("check", "--quiet", "--fix", "--unsafe-fixes", "--select=I,UP028", name, text=text)
        made[target] = ruff("format", name, text=text)
    if unused:
        sys.exit(f"nothing matches {' or '.join(sorted(unused))}")
    return made


if __name__ == "__main__":
    for target, text in blocking().items():
        (PACKAGE / target).write_text(text, encoding="utf-8")
        print(f"wrote {PACKAGE / target}")
