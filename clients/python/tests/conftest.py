"""A real server for the tests: the built binary with models/tiny, on a free port, with a data folder of its own.

`$DISTILFACE_BIN` names another binary, `$DISTILFACE_TEST_MODEL` another model. Where the binary or ONNX Runtime is
missing, the tests say so and are skipped; with `CI=true` that is a failure.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distilface_client import Client

REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 60


def missing(reason: str) -> None:
    """Skips the test, or fails it where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def binary() -> Path:
    """The server's binary."""
    if named := os.environ.get("DISTILFACE_BIN"):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target / "debug" / "distilface"


class Server:
    """A running server."""

    def __init__(self, data: Path) -> None:
        program = binary()
        if not program.is_file():
            missing(f"{program} is not there: build it with `cargo build`, or set DISTILFACE_BIN")
        model = os.environ.get("DISTILFACE_TEST_MODEL", str(REPOSITORY / "models" / "tiny"))
        self._log = (data.parent / "server.log").open("w+", encoding="utf-8")
        command = [str(program), "--json", "--model", model, "--device", "cpu", "--data", str(data)]
        command += ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # Settings of the person who runs the tests are not ours, but where ONNX Runtime lies is.
            env={
                **{k: v for k, v in os.environ.items() if k == "DISTILFACE_HOME" or not k.startswith("DISTILFACE_")},
                "DISTILFACE_DATA__BACKUPS": str(data.parent / "backups"),
            },
        )
        # If it neither starts nor ends, reading its address would wait for ever.
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line:
            self.process.wait()
            log = self.log()
            if "libonnxruntime" in log or "ONNX Runtime" in log:
                missing(f"the server found no ONNX Runtime (run `distilface setup`): {log.strip()[-500:]}")
            pytest.fail(f"the server did not start: {log}", pytrace=False)
        self.address: str = json.loads(line)["address"]

    def log(self) -> str:
        """What the server wrote to its log."""
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> int:
        """Asks the server to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return self.process.returncode


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests; each test makes collections of its own."""
    running = Server(tmp_path_factory.mktemp("server") / "data")
    yield running
    assert running.stop() == 0, "the server did not end cleanly"


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the real server."""
    with Client(server.address) as client:
        client.wait_ready()
        yield client
