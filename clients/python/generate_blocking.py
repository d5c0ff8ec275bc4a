"""Turns distilface_client/aio.py into distilface_client/client.py: the same calls without waiting for them.

The result is committed, and a test compares it. Run this after a change of aio.py, with ruff installed:

    python generate_blocking.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent / "distilface_client"
SOURCE = PACKAGE / "aio.py"
TARGET = PACKAGE / "client.py"
HEAD = '"""The client for ordinary, blocking code: made from aio.py by generate_blocking.py, not edited by hand."""\n'
# In this order; each must be found.
REPLACED = [
    (r'^""".*?"""\n', HEAD),
    (r"(?<!\w)\(await (self\._call\([^()]*(?:\([^()]*\)[^()]*)*\))\)(?=\.)", r"\1"),
    (r"\basync def ", "def "),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"import Iterator, Iterable, Sequence", "import Iterable, Iterator, Sequence"),
    (r"from \._aio_transport import AsyncTransport, Documents\n", ""),
    (r"\nfrom \.errors import", "\nfrom ._transport import Documents, Transport\nfrom .errors import"),
    (r"class AsyncClient\(AsyncTransport\)", "class Client(Transport)"),
    (
        r"for one event loop; close it, or use it in `async with`\.",
        "that threads may share; close it, or use it in `with`.",
    ),
]


def blocking() -> str:
    """The source of the blocking client."""
    text = SOURCE.read_text(encoding="utf-8")
    for pattern, replacement in REPLACED:
        text, found = re.subn(pattern, replacement, text, flags=re.MULTILINE | re.DOTALL)
        if not found:
            sys.exit(f"{SOURCE}: nothing matches {pattern}")
    for left in ("async for", "async with", "asyncio"):
        if left in text:
            sys.exit(f"{SOURCE}: `{left}` has no blocking form; put it into _aio_transport.py")
    formatter = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"]
    done = subprocess.run(formatter, input=text, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    TARGET.write_text(blocking(), encoding="utf-8")
    print(f"wrote {TARGET}")
