"""Turns ../../proto/distilface and proto/wire.proto into distilface_client/_generated.

The files are committed, so installing the package needs no compiler. Run this after a change of the protos:

    python -m venv /tmp/generate && /tmp/generate/bin/pip install "grpcio-tools==1.60.2" "setuptools<81"
    /tmp/generate/bin/python generate.py

The version is pinned because code that newer versions write refuses to run with older libraries.
Imports are made relative, so the package claims no top-level name but its own.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tempfile
from pathlib import Path

TOOLS_VERSION = "1.60.2"
HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
TARGET = HERE / "distilface_client" / "_generated"
HEADER = '"""Written by generate.py from the .proto files; not edited by hand."""\n'
FILES = ("common", "collections", "documents", "search", "encoder", "backups")


def installed_version() -> str | None:
    """Answers the version of grpcio-tools here, if it is installed."""
    try:
        return importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        return None


def protoc(*arguments: str) -> None:
    """Runs the protobuf compiler that grpcio-tools carries, once for each folder of protos.

    `{root}` in an argument becomes the name of that folder's owner, for outputs that need a name each.
    """
    import grpc_tools
    from grpc_tools import protoc as compiler

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = [f"distilface/v1/{name}.proto" for name in FILES]
    for owner, root, sources in (("api", PROTO, files), ("client", HERE / "proto", ["wire.proto"])):
        given = [argument.replace("{root}", owner) for argument in arguments]
        if compiler.main(["protoc", f"-I{root}", f"-I{well_known}", *given, *sources]) != 0:
            sys.exit(f"protoc failed on {root}")


def generate(target: Path) -> None:
    """Writes the package of generated modules into `target`, replacing what is there."""
    with tempfile.TemporaryDirectory() as temporary:
        protoc(f"--python_out={temporary}", f"--pyi_out={temporary}", f"--grpc_python_out={temporary}")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "__init__.py").write_text(HEADER, encoding="utf-8")
        for source in sorted(Path(temporary).rglob("*_pb2*.py*")):
            text = source.read_text(encoding="utf-8")
            if source.name.endswith("_grpc.py") and "Stub" not in text:
                continue
            text = re.sub(r"^from distilface\.v1 import ", "from . import ", text, flags=re.MULTILINE)
            (target / source.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    found = installed_version()
    if found != TOOLS_VERSION:
        sys.exit(f"grpcio-tools {TOOLS_VERSION} is needed, this Python has {found}: see the head of this file")
    generate(TARGET)
    print(f"wrote {TARGET}")
