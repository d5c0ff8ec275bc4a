"""The client for blocking code: made from aio.py by generate_blocking.py, not edited by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import _methods as m
from . import messages
from ._concurrency import Documents, sleep
from ._generated import collections_pb2, documents_pb2, encoder_pb2, search_pb2, wire_pb2
from ._ingest import DEFAULT_BATCH, Batches
from ._transport import Transport
from .errors import DistilfaceError
from .filters import Filter, to_filter
from .payload import Payload
from .types import (
    Chunking,
    CollectionInfo,
    CollectionStats,
    Counted,
    DocumentLike,
    Embeddings,
    Fetched,
    HealthStatus,
    Id,
    IndexConfig,
    Metric,
    Model,
    PayloadSet,
    Query,
    SearchResult,
    StoredDocument,
    TextKind,
    WriteResult,
)


class Client(Transport):
    """A connection to a distilface server that threads may share; close it, or use it in `with`.

    `address`: `host:port`, or a URL as `distilface serve` prints it; `https://` means TLS.
    `timeout`: seconds that each call may take, repetitions included, unless the call names its own;
    `math.inf` waits for ever. `retry`: how reading calls are repeated while the server is unavailable.
    `message_bytes_max`: the largest answer that is taken.

    The connection is made by the first call. Wherever a collection is named, an alias may stand.
    Every call raises a subclass of `DistilfaceError` on failure; `TypeError` and `ValueError` mean that the
    arguments were refused before anything was sent.
    """

    def create_collection(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: Metric = Metric.COSINE,
        index: IndexConfig | None = None,
        chunking: Chunking | None = None,
        vectors_only: bool = False,
        model: str = "",
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> CollectionInfo:
        """Makes a collection and says what it became.

        `dimension`: the model's if left out; required for `vectors_only`, where documents bring their vectors.
        `model`: an encoder that the server has (`models`), its default if left out.
        `if_not_exists`: answer a collection that exists with the same settings instead of refusing.
        Raises `AlreadyExists`, `InvalidArgument`, `NotFound` for a model that the server has not.
        """
        request = messages.create_collection(
            name, dimension, metric, index, chunking, vectors_only, model, if_not_exists
        )
        return messages.collection_info(self._call(m.CREATE, request, timeout).collection)

    def collection(self, name: str, *, timeout: float | None = None) -> CollectionInfo:
        """What a collection is. Raises `NotFound`."""
        request = collections_pb2.GetCollectionRequest(name=name)
        return messages.collection_info(self._call(m.COLLECTION, request, timeout).collection)

    def collections(self, *, timeout: float | None = None) -> list[CollectionInfo]:
        """Every collection."""
        answer = self._call(m.COLLECTIONS, collections_pb2.ListCollectionsRequest(), timeout)
        return [messages.collection_info(wire) for wire in answer.collections]

    def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a collection with all its documents and the aliases that point at it. Raises `NotFound`."""
        self._call(m.DROP, collections_pb2.DeleteCollectionRequest(name=name), timeout)

    def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> str | None:
        """Points an alias at a collection, in one step for every later request.

        Answers the collection that the alias named before, if any.
        """
        request = collections_pb2.SetAliasRequest(alias=alias, collection=collection)
        return self._call(m.SET_ALIAS, request, timeout).previous or None

    def delete_alias(self, alias: str, *, timeout: float | None = None) -> None:
        """Deletes an alias; the collection stays. Raises `NotFound`."""
        self._call(m.DELETE_ALIAS, collections_pb2.DeleteAliasRequest(alias=alias), timeout)

    def stats(
        self,
        collection: str,
        *,
        fields_prefix: str = "",
        fields_page_size: int = 0,
        fields_page_token: str = "",
        timeout: float | None = None,
    ) -> CollectionStats:
        """Counts of a collection, and a page of its payload fields.

        `fields_prefix`: only fields whose names begin so. `fields_page_size`: at most so many, up to 10000; 0: 1000.
        `fields_page_token`: the last answer's `next_fields_page_token`, to go on.
        """
        request = collections_pb2.CollectionStatsRequest(
            name=collection,
            fields_prefix=fields_prefix,
            fields_page_size=fields_page_size,
            fields_page_token=fields_page_token,
        )
        return messages.collection_stats(self._call(m.STATS, request, timeout))

    def upsert(
        self, collection: str, documents: Iterable[DocumentLike], *, timeout: float | None = None
    ) -> list[WriteResult]:
        """Writes documents, all or none; they are on disk when this returns.

        A document is a `Document` or a dict with its fields. One bad document refuses the request and changes nothing.
        Results are in the order of the documents. For more than a few hundred use `ingest`.
        """
        wire = [messages.document(document) for document in documents]
        request = documents_pb2.UpsertRequest(collection=collection, documents=wire)
        return [messages.write_result(result) for result in self._call(m.UPSERT, request, timeout).results]

    def ingest(
        self,
        collection: str,
        documents: Documents,
        *,
        batch: int = DEFAULT_BATCH,
        timeout: float | None = None,
    ) -> Iterator[WriteResult]:
        """Writes any number of documents over one stream and yields what became of each, in order.

        Iterate over it to the end: documents are taken from `documents` (in the thread that iterates) only as fast as
        results are consumed and the server can encode. A yielded document is on disk. A bad one is yielded with
        `WriteStatus.FAILED`, its id and its place, and the rest goes on; what concerns all of them, such as an unknown
        collection, is raised. Leaving the loop early cancels what is not
        answered yet. `timeout` is for the whole stream; no limit if left out.
        """
        return self._ingest(Batches(collection, batch), documents, timeout)

    def set_payload(
        self,
        collection: str,
        ids: Id | Iterable[Id],
        payload: Payload | None = None,
        *,
        remove: str | Iterable[str] = (),
        replace: bool = False,
        timeout: float | None = None,
    ) -> PayloadSet:
        """Sets fields of stored documents and removes others; title, text and vectors stay, nothing is encoded.

        With `replace`, `payload` becomes the whole payload. Each document is changed as one unit and no change that
        another client makes at the same time is lost; one that cannot be changed is answered as
        `WriteStatus.FAILED` and does not stop the others. Raises `TypeError` or `ValueError` where a value cannot be
        stored.
        """
        request = messages.set_payload(collection, ids, payload, remove, replace)
        return messages.payload_set(self._call(m.SET_PAYLOAD, request, timeout))

    def get(
        self,
        collection: str,
        ids: Id | Iterable[Id],
        *,
        with_vectors: bool = False,
        timeout: float | None = None,
    ) -> Fetched:
        """Documents by id: those found, in the order asked, and the ids that are missing."""
        request = documents_pb2.GetDocumentsRequest(
            collection=collection, ids=messages.id_list(ids), with_vectors=with_vectors
        )
        answer = self._call(m.GET, request, timeout)
        return Fetched(tuple(messages.stored_document(wire) for wire in answer.documents), tuple(answer.missing))

    def delete(
        self,
        collection: str,
        ids: Id | Iterable[Id] | None = None,
        *,
        filter: str | Filter | None = None,
        timeout: float | None = None,
    ) -> Counted:
        """Deletes documents by id or by filter; answers how many there were.

        The number carries the server's `hints` on the filter, which are `FilterHint` warnings too.
        """
        request = messages.delete_documents(collection, ids, filter)
        answer = self._call(m.DELETE, request, timeout)
        return messages.counted(answer.deleted, messages.hinted(answer.hints))

    def scroll(
        self,
        collection: str,
        *,
        filter: str | Filter | None = None,
        page: int = 100,
        with_text: bool = True,
        with_vectors: bool = False,
        timeout: float | None = None,
    ) -> Iterator[StoredDocument]:
        """Every document that matches, ordered by id; fetched by `page` at a time, each within `timeout`."""
        condition = to_filter(filter)
        cursor = ""
        while True:
            request = documents_pb2.ScrollRequest(
                collection=collection,
                filter=condition,
                limit=page,
                cursor=cursor,
                without_text=not with_text,
                with_vectors=with_vectors,
            )
            answer = self._call(m.SCROLL, request, timeout)
            messages.hinted(answer.hints)
            for wire in answer.documents:
                yield messages.stored_document(wire)
            cursor = answer.next_cursor
            if not cursor:
                return

    def count(self, collection: str, *, filter: str | Filter | None = None, timeout: float | None = None) -> Counted:
        """How many documents match, or are there; with `hints` as `delete` has them."""
        request = documents_pb2.CountRequest(collection=collection, filter=to_filter(filter))
        answer = self._call(m.COUNT, request, timeout)
        return messages.counted(answer.documents, messages.hinted(answer.hints))

    def search(
        self,
        collection: str,
        text: str | None = None,
        *,
        vector: Sequence[float] | Any | None = None,
        like: Id | None = None,
        k: int = 10,
        filter: str | Filter | None = None,
        ef: int | None = None,
        exact: bool = False,
        threshold: float | None = None,
        by_passage: bool = False,
        with_payload: bool = True,
        with_text: bool = True,
        explain: bool = False,
        timeout: float | None = None,
    ) -> SearchResult:
        """The `k` documents nearest to a text, a vector, or the document of the id `like` (itself left out).

        `filter`: only documents that match, as text or made with `field`; min(k, matching) hits come back.
        What the server remarks on it, such as a field that no document has, is in `hints`, and a `FilterHint` warning.
        `ef`: candidates that the graph keeps, the collection's if left out; `exact`: compare with every vector.
        `threshold`: leave out hits that score less. `by_passage`: one hit per passage instead of per document.
        """
        query = Query(
            collection=collection,
            text=text,
            vector=vector,
            like=like,
            k=k,
            filter=filter,
            ef=ef,
            exact=exact,
            threshold=threshold,
            by_passage=by_passage,
            with_payload=with_payload,
            with_text=with_text,
            explain=explain,
        )
        answer = self._call(m.SEARCH, messages.search(query), timeout)
        messages.hinted(answer.hints)
        return messages.search_result(answer)

    def search_batch(self, queries: Iterable[Query], *, timeout: float | None = None) -> list[SearchResult]:
        """Several searches at once, answered in order; one bad query refuses all of them."""
        request = search_pb2.SearchBatchRequest(requests=[messages.search(query) for query in queries])
        answer = self._call(m.SEARCH_BATCH, request, timeout)
        messages.hinted(hint for wire in answer.responses for hint in wire.hints)
        return [messages.search_result(wire) for wire in answer.responses]

    def embed(
        self, texts: Sequence[str], *, kind: TextKind = TextKind.RAW, model: str = "", timeout: float | None = None
    ) -> Embeddings:
        """Texts as vectors, in order, of the server's default model or the one named. Raises `NotFound`."""
        return messages.embeddings(self._call(m.EMBED, messages.embed(texts, kind, model), timeout))

    def similarity(
        self, text: str, others: Sequence[str], *, model: str = "", timeout: float | None = None
    ) -> list[float]:
        """The cosine of a text and each of the others; `model` as in `embed`."""
        request = encoder_pb2.SimilarityRequest(text=text, others=messages.text_list(others), model=model)
        return list(self._call(m.SIMILARITY, request, timeout).scores)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """The encoders that the server knows."""
        answer = self._call(m.MODELS, encoder_pb2.ModelsRequest(), timeout)
        return [messages.model(wire) for wire in answer.models]

    def use_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Makes one of the server's models its default, without a pause, until the server ends.

        Collections keep the model they were made with. Raises `NotFound`; the default then stays what it was.
        """
        request = encoder_pb2.UseModelRequest(name=name)
        return messages.model(self._call(m.USE_MODEL, request, timeout).model)

    def health(self, service: str = "", *, timeout: float | None = None) -> HealthStatus:
        """What the server says about itself, or about one service such as `distilface.v1.Search`."""
        request = wire_pb2.HealthCheckRequest(service=service)
        return messages.health_status(self._call(m.HEALTH, request, timeout))

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Waits until the server is serving. Raises `Unavailable` if it is not within `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            try:
                if self.health(timeout=max(left, 0.001)) is HealthStatus.SERVING:
                    return
                failure: DistilfaceError | None = None
            except DistilfaceError as error:
                failure = error
            if time.monotonic() + 0.05 >= end:
                raise messages.not_ready(timeout, failure) from failure
            sleep(0.05)
