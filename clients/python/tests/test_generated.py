"""The committed generated code is what the .proto files say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import generate
import generate_blocking
from distilface_client import _generated

MODULES = [*generate.FILES, "wire"]
COMMITTED = Path(str(_generated.__file__)).parent


def committed(name: str) -> descriptor_pb2.FileDescriptorProto:
    module: Any = importlib.import_module(f"distilface_client._generated.{name}_pb2")
    return plain(descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))


def plain(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Without the JSON names, which only some outputs of protoc carry and which follow from the others."""

    def strip(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            strip(nested)

    for message in file.message_type:
        strip(message)
    return file


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Descriptors compiled now, by the last part of their file's name."""
    if generate.installed_version() is None:
        pytest.skip("grpcio-tools is not installed")
    if not generate.PROTO.is_dir():
        pytest.skip(f"{generate.PROTO} is not there: the package was taken out of its repository")
    folder = tmp_path_factory.mktemp("descriptors")
    generate.protoc(f"--descriptor_set_out={folder}/{{root}}.bin")
    found = {}
    for path in folder.iterdir():
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
            found[Path(file.name).stem] = plain(file)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_messages_and_services_are_those_of_the_protos(
    name: str, fresh: dict[str, descriptor_pb2.FileDescriptorProto]
) -> None:
    assert committed(name) == fresh[name], "run generate.py"


@pytest.mark.parametrize("name", generate.FILES)
def test_every_method_has_its_stub(name: str) -> None:
    services = committed(name).service
    if not services:
        return
    source = (COMMITTED / f"{name}_pb2_grpc.py").read_text(encoding="utf-8")
    for service in services:
        for method in service.method:
            assert f"'/distilface.v1.{service.name}/{method.name}'" in source, "run generate.py"


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    found = generate.installed_version()
    if found != generate.TOOLS_VERSION:
        pytest.skip(f"generated with grpcio-tools {generate.TOOLS_VERSION}, here is {found}")
    generate.generate(tmp_path / "again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    now = {path.name: path.read_bytes() for path in COMMITTED.iterdir() if path.is_file()}
    assert again == now, "run generate.py"


@pytest.fixture(scope="module")
def blocking() -> dict[str, str]:
    """The blocking files as they are made now, by name."""
    pytest.importorskip("ruff")
    return generate_blocking.blocking()


@pytest.mark.parametrize("name", generate_blocking.TARGETS.values())
def test_blocking_files_are_made_from_asyncio_ones(name: str, blocking: dict[str, str]) -> None:
    assert (generate_blocking.PACKAGE / name).read_text(encoding="utf-8") == blocking[name], "run generate_blocking.py"


def test_all_asyncio_code_is_turned_into_blocking_code_or_stands_in_one_place() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in generate_blocking.PACKAGE.glob("*.py")}
    waiting = {
        name for name, text in sources.items() if re.search(r"^import asyncio|\bawait\b|\basync def ", text, re.M)
    }
    assert waiting == {*generate_blocking.TARGETS, "_concurrency.py"}
