"""The examples run, and the README's code is among what is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Server

HERE = Path(__file__).resolve().parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return [block.split("```")[0] for block in README.split("```python\n")[1:]]


def run(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quickstart_loads_and_searches(server: Server) -> None:
    script = str(HERE / "examples" / "quickstart.py")
    printed = run([script, "--address", server.address])
    assert "302 documents: 302 inserted" in printed
    assert printed.count("…") == 15
    assert "302 documents: 302 unchanged" in run([script, "--address", server.address])


@pytest.mark.parametrize("block", python_blocks(), ids=range(len(python_blocks())))
def test_the_readme_runs(server: Server, block: str) -> None:
    assert "127.0.0.1:7700" in block
    run(["-c", block.replace("127.0.0.1:7700", server.address)])
