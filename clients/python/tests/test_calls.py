"""How calls travel: retries, deadlines, request ids, the ingest stream; against a scripted server in this process."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from distilface_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Document,
    FilterHint,
    Internal,
    NotFound,
    Retry,
    TooLarge,
    Unavailable,
    WriteResult,
    WriteStatus,
    _ingest,
    messages,
)
from distilface_client._generated import documents_pb2, documents_pb2_grpc, encoder_pb2

QUICK = Retry(attempts=4, first_pause=0.01, longest_pause=0.02)


class Scripted(documents_pb2_grpc.DocumentsServicer):
    """Answers as a test tells it to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.hints: list[str] = []
        self.failures: list[grpc.StatusCode] = []
        self.delay = 0.0
        self.batches: list[tuple[str, int, int]] = []
        self.answer: Callable[[Any], Any] = self.accept
        self.hold = threading.Event()
        self.hold.set()
        self.stop_after: int | None = None

    def _begin(self, context: Any) -> None:
        self.ids.append(dict(context.invocation_metadata())["x-request-id"])
        time.sleep(self.delay)
        if self.failures:
            context.abort(self.failures.pop(0), "scripted")

    def Count(self, request: Any, context: Any) -> Any:
        self._begin(context)
        return documents_pb2.CountResponse(documents=7, hints=self.hints)

    def Upsert(self, request: Any, context: Any) -> Any:
        self._begin(context)
        return documents_pb2.UpsertResponse()

    def Get(self, request: Any, context: Any) -> Any:
        stored = documents_pb2.StoredDocument(document=documents_pb2.Document(id="big", text="x" * 100_000))
        return documents_pb2.GetDocumentsResponse(documents=[stored])

    def Ingest(self, requests: Any, context: Any) -> Any:
        self._begin(context)
        for n, request in enumerate(requests):
            if self.stop_after == n:
                return
            self.batches.append((request.collection, request.sequence, len(request.documents)))
            self.hold.wait(10)
            yield self.answer(request)

    @staticmethod
    def accept(request: Any) -> Any:
        return documents_pb2.IngestResponse(
            sequence=request.sequence,
            results=[
                documents_pb2.DocumentResult(id=d.id, status=documents_pb2.WRITE_STATUS_INSERTED, tokens=3)
                for d in request.documents
            ],
        )


@pytest.fixture
def server() -> Iterator[tuple[Scripted, str]]:
    scripted = Scripted()
    running = grpc.server(futures.ThreadPoolExecutor(4))
    documents_pb2_grpc.add_DocumentsServicer_to_server(scripted, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield scripted, f"http://127.0.0.1:{port}"
    scripted.hold.set()
    running.stop(None).wait()


def documents(n: int) -> Iterator[Document]:
    for i in range(n):
        yield Document(f"d{i}", "text")


def ingest(address: str, source: Any, batch: int = 2, asynchronous: bool = False) -> list[WriteResult]:
    """All results of one stream, from either client."""

    async def run() -> list[WriteResult]:
        async with AsyncClient(address) as client:
            return [result async for result in client.ingest("c", source, batch=batch)]

    if asynchronous:
        return asyncio.run(run())
    with Client(address) as client:
        return list(client.ingest("c", source, batch=batch))


def count(address: str, asynchronous: bool, **options: Any) -> int:
    async def run() -> int:
        async with AsyncClient(address, **options) as client:
            return await client.count("c")

    if asynchronous:
        return asyncio.run(run())
    with Client(address, **options) as client:
        return client.count("c")


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both
def test_reads_are_repeated_while_the_server_is_unavailable(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.UNAVAILABLE] * 3
    assert count(address, asynchronous, retry=QUICK) == 7
    assert len(scripted.ids) == 4
    assert len(set(scripted.ids)) == 1, "repetitions are one request to the server's log"


@both
def test_repetition_is_bounded(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    with pytest.raises(Unavailable) as caught:
        count(address, asynchronous, retry=QUICK)
    assert len(scripted.ids) == QUICK.attempts
    assert caught.value.request_id == scripted.ids[0]


@both
def test_no_pause_outlasts_the_timeout(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        count(address, asynchronous, retry=Retry(first_pause=60, longest_pause=60), timeout=5)
    assert time.monotonic() - begin < 4
    assert len(scripted.ids) == 1


@both
def test_other_failures_are_not_repeated(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.NOT_FOUND] * 9
    with pytest.raises(NotFound, match="scripted"):
        count(address, asynchronous, retry=QUICK)
    assert len(scripted.ids) == 1


def test_writes_are_repeated_only_where_the_server_does_them_once(server: tuple[Scripted, str]) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    with Client(address, retry=QUICK) as client:
        with pytest.raises(Unavailable):
            client.upsert("c", documents(1))
        assert len(scripted.ids) == 1
        with pytest.raises(Unavailable):
            client.upsert("c", documents(1), request_id="once")
    assert len(scripted.ids) == 1 + QUICK.attempts


@both
def test_the_timeout_is_kept(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.delay = 1.0
    with pytest.raises(DeadlineExceeded) as caught:
        count(address, asynchronous, timeout=0.2)
    assert caught.value.request_id == scripted.ids[0]


def test_an_answer_over_the_limit_is_named_so(server: tuple[Scripted, str]) -> None:
    _, address = server
    with Client(address, message_bytes_max=10_000) as client, pytest.raises(TooLarge):
        client.get("c", "big")


@both
def test_a_server_that_is_not_there_is_unavailable(asynchronous: bool) -> None:
    with pytest.raises(Unavailable) as caught:
        count("127.0.0.1:1", asynchronous, retry=QUICK)
    assert caught.value.request_id
    assert "no server answers at 127.0.0.1:1 (" in caught.value.message
    assert "`distilface serve`" in str(caught.value)


@both
@pytest.mark.parametrize("n", [1, 7, 300])
def test_a_document_that_cannot_be_sent_fails_in_its_place_and_the_rest_goes_on(
    server: tuple[Scripted, str], asynchronous: bool, n: int
) -> None:
    scripted, address = server
    bad: dict[int, Any] = {
        0: Document("d0", "half a pair: \ud800"),
        149: Document("d149", "text", payload={"weight": float("nan")}),
        150: {"id": "d150", "text": "text", "year": 2001},
        151: Document("\ud800", "text"),
        152: 7,
        299: Document("d299", "text", vector=[[1.0]]),
    }
    results = ingest(address, (bad.get(i, Document(f"d{i}", "text")) for i in range(n)), 4, asynchronous)
    assert len(results) == n
    failed = {place: result for place, result in enumerate(results) if result.status is WriteStatus.FAILED}
    assert sorted(failed) == [place for place in bad if place < n]
    assert [r.id for p, r in enumerate(results) if p not in bad] == [f"d{i}" for i in range(n) if i not in bad]
    for place, result in failed.items():
        assert f"document {place + 1} of the stream was not sent" in result.error
    said = {149: "payload field 'weight'", 150: "no field 'year'", 152: "not int", 299: "document 'd299', vector"}
    for place, part in said.items():
        if place < n:
            assert part in failed[place].error
    assert sum(size for _, _, size in scripted.batches) == n - len(failed)


@both
@pytest.mark.parametrize("kind", ["list", "generator", "asynchronous generator"])
@pytest.mark.parametrize("places", [[0], [3], [4], [1, 2, 9], list(range(10))])
def test_a_none_among_the_documents_fails_in_its_place_and_the_rest_goes_on(
    server: tuple[Scripted, str], asynchronous: bool, kind: str, places: list[int]
) -> None:
    given: list[Any] = [None if i in places else Document(f"d{i}", "text") for i in range(10)]

    async def awaited() -> AsyncIterator[Any]:
        for document in given:
            await asyncio.sleep(0)
            yield document

    if kind == "asynchronous generator" and not asynchronous:
        pytest.skip("the blocking client takes none")
    source: Any = {"list": given, "generator": iter(given)}.get(kind) or awaited()
    results = ingest(server[1], source, 4, asynchronous)
    assert [place for place, result in enumerate(results) if result.status is WriteStatus.FAILED] == places
    assert [r.id for r in results] == ["" if i in places else f"d{i}" for i in range(10)]
    for place in places:
        assert f"document {place + 1} of the stream was not sent" in results[place].error
        assert "not NoneType" in results[place].error


def test_a_document_is_a_dict_and_an_id_an_integer_too() -> None:
    made = messages.document({"id": 7, "text": "t", "title": None, "payload": {"n": 1, "m": None}})
    assert (made.id, made.text, made.title, list(made.payload)) == ("7", "t", "", ["n"])
    same = uuid.UUID(int=1)
    assert [messages.document_id(given) for given in (0, -3, "x", same)] == ["0", "-3", "x", str(same)]
    assert messages.id_list(7) == ["7"]
    assert messages.id_list([1, "b"]) == ["1", "b"]
    bad: list[tuple[Any, str]] = [
        ({"text": "t"}, "a document needs an id"),
        ({"id": 1, "txt": "t"}, "no field 'txt', only id, text, title, payload, vector and expected_version"),
        ({"id": True}, "a str or an int, not bool"),
        ({"id": 1.5}, "a str or an int, not float"),
        ({"id": "x", "text": 5}, "document 'x', text: int is no text"),
        ({"id": "x", "title": "\ud800"}, "document 'x', title: character 0"),
        ({"id": "x", "payload": [1]}, "document 'x': the payload is a dict of fields"),
        ({"id": "x", "vector": ["a"]}, "document 'x', vector: a flat list of numbers"),
        (None, "a Document or a dict, not NoneType"),
    ]
    for given, said in bad:
        with pytest.raises((TypeError, ValueError), match=said):
            messages.document(given)


def test_vectors_are_numpy_arrays_where_numpy_is_there() -> None:
    wire = encoder_pb2.EmbedResponse(embeddings=[{"values": [0.5, 1.0]}, {"values": [0.25, -1.0]}])
    made = messages.embeddings(wire)
    assert list(messages.vector(made[0]).values) == [0.5, 1.0]
    np = pytest.importorskip("numpy")
    assert made.numpy().dtype == np.float32
    assert made.numpy().tolist() == [[0.5, 1.0], [0.25, -1.0]]
    assert np.asarray(made).shape == (2, 2)
    assert np.asarray(made[1], dtype="float64").tolist() == [0.25, -1.0]
    for given in (np.array([0.5, 1.0], dtype="float32"), np.array([0.5, 1]), (0.5, np.int64(1))):
        assert list(messages.vector(given).values) == [0.5, 1.0]
    with pytest.raises(TypeError, match="flat list"):
        messages.vector(np.array([[0.5]]))


def test_hints_are_warnings_and_part_of_the_answer(server: tuple[Scripted, str]) -> None:
    scripted, address = server
    scripted.hints = ["no document has the field 'yaer'"]
    with pytest.warns(FilterHint, match="yaer") as caught, Client(address) as client:
        counted = client.count("c", filter="yaer = 1")
    assert (counted, counted.hints) == (7, tuple(scripted.hints))
    assert caught[0].filename == __file__


def test_wait_ready_gives_up(server: tuple[Scripted, str]) -> None:
    with Client("127.0.0.1:1", retry=Retry(attempts=1)) as client, pytest.raises(Unavailable, match=r"within 0\.3 s"):
        client.wait_ready(timeout=0.3)


@both
@pytest.mark.parametrize("n", [0, 1, 4, 5, 101])
def test_every_document_is_answered_in_order(server: tuple[Scripted, str], asynchronous: bool, n: int) -> None:
    scripted, address = server
    results = ingest(address, documents(n), batch=4, asynchronous=asynchronous)
    assert [r.id for r in results] == [f"d{i}" for i in range(n)]
    assert all(r.status is WriteStatus.INSERTED and r.tokens == 3 for r in results)
    assert [size for _, _, size in scripted.batches] == [4] * (n // 4) + ([n % 4] if n % 4 else [])
    assert [number for _, number, _ in scripted.batches] == list(range(len(scripted.batches)))
    assert [name for name, _, _ in scripted.batches] == (["c"] + [""] * (len(scripted.batches) - 1))[: (n + 3) // 4]


def test_async_ingest_takes_async_documents(server: tuple[Scripted, str]) -> None:
    _, address = server

    async def source() -> AsyncIterator[Document]:
        for document in documents(5):
            await asyncio.sleep(0)
            yield document

    assert len(ingest(address, source(), asynchronous=True)) == 5


@both
def test_documents_are_taken_only_as_fast_as_they_are_answered(
    server: tuple[Scripted, str], asynchronous: bool
) -> None:
    scripted, address = server
    taken = 0

    def source() -> Iterator[Document]:
        nonlocal taken
        for document in documents(1000):
            taken += 1
            yield document

    async def first() -> None:
        async with AsyncClient(address) as client:
            stream = client.ingest("c", source(), batch=2)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]

    if asynchronous:
        asyncio.run(first())
    else:
        with Client(address) as client:
            stream = client.ingest("c", source(), batch=2)
            next(stream)
            stream.close()  # type: ignore[attr-defined]
    assert taken == 2 * _ingest.WINDOW
    assert len(scripted.batches) <= _ingest.WINDOW


@both
def test_a_failure_of_the_stream_is_raised_after_the_answers_before_it(
    server: tuple[Scripted, str], asynchronous: bool
) -> None:
    scripted, address = server
    scripted.failures = [grpc.StatusCode.NOT_FOUND]
    with pytest.raises(NotFound) as caught:
        ingest(address, documents(1000), asynchronous=asynchronous)
    assert caught.value.request_id == scripted.ids[0]


@both
def test_a_source_that_fails_fails_the_loop_with_its_own_error(
    server: tuple[Scripted, str], asynchronous: bool
) -> None:
    _, address = server

    def source() -> Iterator[Document]:
        yield from documents(3)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        ingest(address, source(), asynchronous=asynchronous)


@both
def test_a_server_that_loses_count_is_found_out(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.answer = lambda request: documents_pb2.IngestResponse(sequence=request.sequence + 1)
    with pytest.raises(Internal, match="batch 0 of 2 documents was due"):
        ingest(address, documents(10), asynchronous=asynchronous)


@both
def test_a_stream_that_ends_early_is_found_out(server: tuple[Scripted, str], asynchronous: bool) -> None:
    scripted, address = server
    scripted.stop_after = 1
    with pytest.raises(Internal, match="ended before batch 1"):
        ingest(address, documents(10), asynchronous=asynchronous)


def test_batches_close_before_they_are_too_large() -> None:
    batches = _ingest.Batches("c", 1000)
    half = "x" * (_ingest.BATCH_BYTES_MAX // 2)
    assert batches.add(Document("1", half)) is None
    full = batches.add(Document("2", half))
    assert full is not None
    assert [d.id for d in full.documents] == ["1"]
    rest = batches.flush()
    assert rest is not None
    assert [d.id for d in rest.documents] == ["2"]
    assert batches.flush() is None


def test_a_batch_holds_at_least_one_document(server: tuple[Scripted, str]) -> None:
    with Client(server[1]) as client, pytest.raises(ValueError, match="batch is 0"):
        client.ingest("c", [], batch=0)
