"""Every public name is documented, with its parameters and fields, and examples in docstrings give what they show."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import doctest
import enum
import inspect
import io
import itertools
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import distilface_client
from distilface_client import AsyncClient, Client, Document, _methods, errors, filters, payload
from distilface_client import types as data

from .conftest import Server

PUBLIC: dict[str, Any] = {name: getattr(distilface_client, name) for name in distilface_client.__all__}
# Calls of which the examples of others tell enough.
WITHOUT_EXAMPLE = {"close", "delete_alias", "delete_collection", "use_model"}
CALLS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
NOTES = [
    Document("1", "The cat sleeps on the sofa.", payload={"year": 2021, "tags": ["pet"]}),
    Document("2", "Share prices fell sharply.", payload={"year": 2024, "tags": ["money"]}),
]


@pytest.mark.parametrize("module", [_methods, errors, filters, payload, data], ids=lambda module: module.__name__)
def test_examples_that_need_no_server_hold(module: types.ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.failed == 0
    assert done.attempted > 0


@pytest.fixture
def notes(client: Client) -> Iterator[None]:
    """Makes the collection of which the examples speak, and removes it with all else that they make."""
    # Some examples list all collections, so those of other tests go too. Backups go as a user removes them.
    for info in client.collections():
        client.delete_collection(info.name)
    for backup in client.backups():
        shutil.rmtree(backup.folder)
    client.create_collection("notes")
    client.upsert("notes", NOTES)
    yield
    for info in client.collections():
        client.delete_collection(info.name)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def examples(of: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(of) or "")


def check(parts: list[doctest.Example], names: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
    """Runs statements one by one, awaiting those that wait, and compares what they print."""
    assert parts, "an example is missing"
    for part in parts:
        code = compile(part.source, "<example>", "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            started = types.FunctionType(code, names)()
            if inspect.iscoroutine(started):
                loop.run_until_complete(started)
        assert printed.getvalue() == part.want, part.source


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["", *(name for name in CALLS if name not in WITHOUT_EXAMPLE)])
def test_examples_of_the_clients_hold(server: Server, loop: asyncio.AbstractEventLoop, kind: type, name: str) -> None:
    of = getattr(kind, name) if name else kind
    parts = examples(of)
    for part in parts:
        part.source = part.source.replace("127.0.0.1:7700", server.address)

    async def opened() -> AsyncClient:
        return AsyncClient(server.address)

    client = Client(server.address) if kind is Client else loop.run_until_complete(opened())
    try:
        check(parts, {**PUBLIC, "client": client}, loop)
    finally:
        closing = client.close()
        if closing is not None:
            loop.run_until_complete(closing)


@pytest.mark.usefixtures("notes")
def test_the_example_of_the_package_holds(server: Server, loop: asyncio.AbstractEventLoop) -> None:
    parts = examples(distilface_client)
    for part in parts:
        part.source = part.source.replace("127.0.0.1:7700", server.address)
    check(parts, {}, loop)


@pytest.mark.parametrize("name", ["", *CALLS])
@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "async"])
def test_every_parameter_of_a_call_is_documented(kind: type, name: str) -> None:
    of = getattr(kind, name) if name else kind
    said = inspect.getdoc(of) or ""
    parameters = set(inspect.signature(of).parameters) - {"self"}
    if name and name not in ("ingest", "scroll", "wait_ready"):
        # The head of the class says it for all calls.
        parameters -= {"timeout"}
    assert [p for p in sorted(parameters) if f"`{p}`" not in said] == []


def fields_of(kind: type) -> list[str]:
    if issubclass(kind, enum.Enum):
        return [member.name for member in kind]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return []


@pytest.mark.parametrize("name", [name for name, kind in PUBLIC.items() if isinstance(kind, type) and fields_of(kind)])
def test_every_field_is_documented(name: str) -> None:
    kind = PUBLIC[name]
    source = Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    (body,) = [n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == kind.__name__]
    documented = []
    for node, after in itertools.pairwise(body):
        text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and text:
            documented.append(node.target.id)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and text:
            documented.append(node.targets[0].id)
    assert [field for field in fields_of(kind) if field not in documented] == []


@pytest.mark.parametrize("name", [n for n, kind in PUBLIC.items() if inspect.isclass(kind) or inspect.isfunction(kind)])
def test_every_public_name_has_a_headline(name: str) -> None:
    found = PUBLIC[name]
    methods = [m for n, m in inspect.getmembers(found, inspect.isfunction) if not n.startswith("_")]
    for documented in [found, *(methods if inspect.isclass(found) else [])]:
        headline = (inspect.getdoc(documented) or "").split("\n\n")[0]
        assert headline.endswith("."), documented
