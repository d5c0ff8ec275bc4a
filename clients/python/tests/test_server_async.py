"""The asyncio client against the real server: the same calls, many at once."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from distilface_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    DeadlineExceeded,
    Document,
    HealthStatus,
    InvalidArgument,
    NotFound,
    Query,
    WriteStatus,
    field,
)

from .conftest import Server

DOCUMENTS = [Document(f"d{i}", f"This is text number {i}.", payload={"i": i}) for i in range(20)]
Test = Callable[[AsyncClient, str], Awaitable[None]]


def on(server: Server, test: Test) -> None:
    """Runs a test with a client and a filled collection."""

    async def run() -> None:
        name = f"a-{uuid.uuid4().hex}"
        async with AsyncClient(server.address) as client:
            await client.wait_ready()
            await client.create_collection(name)
            await client.upsert(name, DOCUMENTS)
            await test(client, name)
            await client.delete_collection(name)

    asyncio.run(run())


def test_both_clients_offer_the_same() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        public = {n: f for n, f in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_")}
        return {name: list(inspect.signature(function).parameters) for name, function in public.items()}

    assert surface(Client) == surface(AsyncClient)


def test_every_call_answers(server: Server) -> None:
    async def test(client: AsyncClient, name: str) -> None:
        assert await client.health() is HealthStatus.SERVING
        assert (await client.collection(name)).name == name
        assert name in [c.name for c in await client.collections()]
        assert await client.set_alias(f"x{name}", name) is None
        assert await client.count(f"x{name}") == 20
        await client.delete_alias(f"x{name}")
        assert (await client.stats(name)).documents == 20
        fetched = await client.get(name, ["d1", "none"])
        assert (fetched.documents[0].payload, fetched.missing) == ({"i": 1}, ("none",))
        assert [d.id async for d in client.scroll(name, filter="i < 3", page=2)] == ["d0", "d1", "d2"]
        hits = await client.search(name, "text number 7", k=3, filter=field("i") >= 5, explain=True)
        assert len(hits) == 3
        assert hits.explain is not None
        assert [len(r) for r in await client.search_batch([Query(name, "a", k=2), Query(name, like="d1", k=4)])] == [
            2,
            4,
        ]
        embedded = await client.embed(["a", "b"])
        assert len(embedded) == 2
        assert (await client.similarity("a", ["a"]))[0] == pytest.approx(1.0, abs=1e-4)
        (model,) = [m for m in await client.models() if m.loaded]
        assert model.default
        assert (await client.embed(["a"], model=model.name)).model == model.name
        assert await client.use_model(model.name) == model
        with pytest.raises(NotFound, match="nope"):
            await client.similarity("a", ["a"], model="nope")
        assert await client.delete(name, filter=field("i") >= 10) == 10
        assert await client.delete(name, "d1") == 1

    on(server, test)


def test_ingest_streams(server: Server) -> None:
    async def test(client: AsyncClient, name: str) -> None:
        async def source() -> AsyncIterator[Document]:
            for i in range(300):
                yield Document("" if i == 10 else f"s{i}", f"Streamed text {i}.")

        results = [result async for result in client.ingest(name, source(), batch=16)]
        assert [r.status for r in results].count(WriteStatus.INSERTED) == 299
        assert results[10].status is WriteStatus.FAILED
        assert await client.count(name) == 319
        for _ in range(20):
            with pytest.raises(NotFound, match="nowhere"):
                async for _ in client.ingest("nowhere", DOCUMENTS * 20, batch=2):
                    pass

    on(server, test)


def test_many_at_once(server: Server) -> None:
    async def test(client: AsyncClient, name: str) -> None:
        found = await asyncio.gather(*(client.search(name, d.text, k=1, exact=True) for d in DOCUMENTS))
        assert all(len(result) == 1 for result in found)

    on(server, test)


def test_errors_are_the_same(server: Server) -> None:
    async def test(client: AsyncClient, name: str) -> None:
        with pytest.raises(NotFound):
            await client.count("nowhere")
        with pytest.raises(AlreadyExists):
            await client.create_collection(name)
        with pytest.raises(InvalidArgument) as caught:
            await client.search(name, "x", k=0)
        assert caught.value.violations[0].field == "k"
        assert caught.value.request_id
        with pytest.raises(DeadlineExceeded):
            await client.search(name, "x", timeout=0)

    on(server, test)


def test_a_cancelled_call_leaves_the_client_usable(server: Server) -> None:
    async def test(client: AsyncClient, name: str) -> None:
        task = asyncio.create_task(client.embed(["text " * 200] * 200))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def endless() -> AsyncIterator[Document]:
            i = 0
            while True:
                yield Document(f"e{i}", f"Endless text {i}.")
                i += 1

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_drain(client, name, endless()), 0.5)
        assert await client.count(name) >= 20

    on(server, test)


async def _drain(client: AsyncClient, name: str, source: AsyncIterator[Document]) -> None:
    async for _ in client.ingest(name, source):
        pass
