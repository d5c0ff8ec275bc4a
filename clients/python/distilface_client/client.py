"""Offers every call of the server to blocking code.

It is made from aio.py by generate_blocking.py, not edited by hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import _methods as m
from . import messages
from ._concurrency import Documents, sleep
from ._generated import backups_pb2, collections_pb2, documents_pb2, encoder_pb2, search_pb2, wire_pb2
from ._ingest import DEFAULT_BATCH, Batches
from ._transport import Transport
from .errors import DistilfaceError
from .filters import Filter, to_filter
from .payload import Payload
from .types import (
    Backup,
    Chunking,
    CollectionInfo,
    CollectionStats,
    Counted,
    DocumentLike,
    Durability,
    Embeddings,
    Fetched,
    HealthStatus,
    Id,
    IndexConfig,
    Metric,
    Model,
    PayloadSet,
    Query,
    Restored,
    SearchResult,
    StoredDocument,
    TextKind,
    WriteMode,
    WriteResult,
)


class Client(Transport):
    """Connects to a distilface server that threads may share; close it, or use it in `with`.

    The connection is made by the first call. Wherever a collection is named, an alias may stand.

    - `address`: `host:port`, or a URL as `distilface serve` prints it; `https://` means TLS. Default
      `127.0.0.1:7700`.
    - `timeout`: seconds that each call may take, repetitions included, above 0. Default 30. `math.inf` sets no limit
      here. The server ends a call after its own `server.request_timeout` (60 s) at the latest.
    - `retry`: how reading calls, and writes with a `request_id`, are repeated while the server is unavailable. Default
      `Retry()`: 4 attempts.
    - `credentials`: gRPC's credentials for TLS, such as those of a private authority. By default, an `https://`
      address is checked against the usual authorities, and any other is not encrypted.
    - `message_bytes_max`: the largest request and the largest answer, in bytes. Default 64 MiB. The server has a
      limit of its own for requests, `limits.message_bytes_max` (16 MiB).

    Every call takes a `timeout` of its own in seconds; `None`, the default, means the client's. What a text says
    about `limits` is a setting of the server, and the number is its default.

    Every call raises a subclass of `DistilfaceError` on failure. `TypeError` and `ValueError` mean that the arguments
    were refused before anything was sent.

        >>> with Client("127.0.0.1:7700", timeout=10) as client:
        ...     client.count("notes")
        2

    In the examples below, `client` is open, and the collection `notes` holds two documents: `1`, "The cat sleeps on
    the sofa.", of the year 2021, and `2`, "Share prices fell sharply.", of 2024.
    """

    def create_collection(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: Metric | None = None,
        index: IndexConfig | None = None,
        chunking: Chunking | None = None,
        vectors_only: bool = False,
        model: str = "",
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> CollectionInfo:
        """Creates a collection and answers what it became.

        - `name`: 1 to 128 letters, digits, `_`, `-` or `.`, beginning with a letter or digit.
        - `dimension`: length of the vectors, 1 to 8192. Required for `vectors_only`; otherwise it is the model's,
          which is also the default.
        - `metric`: how near two vectors are. Default `Metric.COSINE`.
        - `index`: how the vectors are indexed. Default `IndexConfig()`.
        - `chunking`: how long texts are cut into passages. Default `Chunking()`.
        - `vectors_only`: there is no encoder; every document brings its vector, and every query is a vector or an id.
          Default `False`.
        - `model`: name of an encoder that the server has (see `models`). Default: the server's default model.
        - `if_not_exists`: a collection that exists is answered instead of refused, if it has every setting that is
          named here. Default `False`.

        Raises `AlreadyExists`, `InvalidArgument`, and `NotFound` for a model that the server does not have.

            >>> made = client.create_collection("places", dimension=2, vectors_only=True, metric=Metric.EUCLIDEAN)
            >>> made.name, made.dimension
            ('places', 2)
        """
        request = messages.create_collection(
            name, dimension, metric, index, chunking, vectors_only, model, if_not_exists
        )
        return messages.collection_info(self._call(m.CREATE, request, timeout).collection)

    def collection(self, name: str, *, timeout: float | None = None) -> CollectionInfo:
        """Describes the collection of this `name`, or of the alias of this name. Raises `NotFound`.

        >>> client.collection("notes").metric.value
        'cosine'
        """
        request = collections_pb2.GetCollectionRequest(name=name)
        return messages.collection_info(self._call(m.COLLECTION, request, timeout).collection)

    def collections(self, *, timeout: float | None = None) -> list[CollectionInfo]:
        """Lists every collection, ordered by name.

        >>> [info.name for info in client.collections()]
        ['notes']
        """
        answer = self._call(m.COLLECTIONS, collections_pb2.ListCollectionsRequest(), timeout)
        return [messages.collection_info(wire) for wire in answer.collections]

    def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes the collection of this `name` with all its documents and the aliases that point at it.

        Raises `NotFound`.
        """
        self._call(m.DROP, collections_pb2.DeleteCollectionRequest(name=name), timeout)

    def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> str | None:
        """Points an `alias` at a `collection`, in one step for every later request.

        Answers the collection that the alias named before, or `None` for a new alias. An alias is named like a
        collection. Raises `NotFound` for a collection that does not exist, `AlreadyExists` where a collection has the
        alias's name.

            >>> client.set_alias("current", "notes")
            >>> client.set_alias("current", "notes")
            'notes'
            >>> client.delete_alias("current")
        """
        request = collections_pb2.SetAliasRequest(alias=alias, collection=collection)
        return self._call(m.SET_ALIAS, request, timeout).previous or None

    def delete_alias(self, alias: str, *, timeout: float | None = None) -> None:
        """Deletes an `alias`; the collection stays. Raises `NotFound`."""
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
        """Counts a `collection`'s documents, vectors and bytes, and describes a page of its payload fields.

        - `fields_prefix`: only fields whose names begin with it. Default: all fields.
        - `fields_page_size`: number of fields at most, 1 to 10000. Default 0, which means 1000.
        - `fields_page_token`: the last answer's `next_fields_page_token`, to go on. Default: the first page.

            >>> stats = client.stats("notes", fields_prefix="y")
            >>> stats.documents, stats.fields
            (2, (FieldStats(field='year', types=('integer',), documents=2),))
        """
        request = collections_pb2.CollectionStatsRequest(
            name=collection,
            fields_prefix=fields_prefix,
            fields_page_size=fields_page_size,
            fields_page_token=fields_page_token,
        )
        return messages.collection_stats(self._call(m.STATS, request, timeout))

    def upsert(
        self,
        collection: str,
        documents: Iterable[DocumentLike],
        *,
        mode: WriteMode = WriteMode.ANY,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> list[WriteResult]:
        """Writes documents, all or none; they are on disk when this returns.

        Of an id that is stored already, the document is replaced. The results are in the order of the documents. For
        more than a few hundred documents use `ingest`.

        - `collection`: where they go.
        - `documents`: 1 to `limits.batch_max` (1024) of them, each a `Document` or a dict with its fields, and each
          id once. All together may have `limits.message_bytes_max` (16 MiB).
        - `mode`: whether they are only to be inserted, or only to replace stored ones. Default: either.
        - `durability`: what it must outlive when it is answered. Default: the loss of power.
        - `request_id`: makes it a write that is done once, however often it is sent with this id: 1 to 64 printable
          ASCII characters without blanks, such as a UUID. Sent again, it is answered as the first time; the client does
          so by itself while the server is unavailable. With anything else asked, the id is refused with
          `AlreadyExists`. The server remembers the last 100,000 ids of a collection for 24 hours. Default: none.

        One bad document refuses the request, and nothing changes. So does one whose `mode` or `expected_version` does
        not fit what is stored; of several writers that expect the same version, one writes. Raises `InvalidArgument`,
        `NotFound`, `TooLarge`; `AlreadyExists` under `WriteMode.INSERT_ONLY`; `FailedPrecondition` where a document
        has another version than is expected, or is not there: read it again, and decide anew.

            >>> results = client.upsert("notes", [Document("3", "Bees dance.", payload={"year": 2024})])
            >>> results[0].status.value
            'inserted'
            >>> read = client.get("notes", "3").documents[0]
            >>> edited = Document("3", "Bees sleep.", expected_version=read.version)
            >>> results = client.upsert("notes", [edited])
            >>> results[0].version > read.version
            True
        """
        wire = [messages.document(document) for document in documents]
        request = documents_pb2.UpsertRequest(
            collection=collection,
            documents=wire,
            mode=messages.write_mode(mode),
            durability=messages.durability_of(durability),
            request_id=request_id or "",
        )
        return [messages.write_result(result) for result in self._call(m.UPSERT, request, timeout).results]

    def ingest(
        self,
        collection: str,
        documents: Documents,
        *,
        batch: int = DEFAULT_BATCH,
        mode: WriteMode = WriteMode.ANY,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[WriteResult]:
        """Writes any number of documents over one stream and yields what became of each, in order.

        Iterate over it to the end: documents are taken only as fast as results are consumed and the server can
        encode. A yielded document is on disk. A bad one is yielded with `WriteStatus.FAILED`, its id and its place,
        and the rest goes on. What concerns all of them, such as an unknown collection, is raised. Leaving the loop
        early cancels what is not answered yet. Of an id that comes twice, the later document stays.

        - `collection`: where they go.
        - `documents`: an iterable of any length, read in this thread; each is a `Document` or a dict with its
          fields.
        - `batch`: number of documents in one message, 1 to `limits.batch_max` (1024). Default 64. A message that has
          4 MiB is sent with fewer.
        - `mode`: whether they are only to be inserted, or only to replace stored ones. Default: either. A document that
          `mode` or its `expected_version` does not fit is yielded with `WriteStatus.FAILED`; `error_kind` says which
          of the two.
        - `durability`: what a yielded document outlives. Default: the loss of power.
        - `request_id`: makes each message a write that is done once; message `n`, from 0, is known as `request_id-n`.
          The same documents with the same `batch` and `request_id` are then not written again, and each is yielded as
          the first time; one that failed then, too. 1 to 50 printable ASCII characters without blanks. Default: none.
        - `timeout`: seconds for the whole stream, above 0. Default: no limit; the server ends a stream that stands
          still for its `server.stream_idle_timeout` (300 s).

        Raises `ValueError` for a `batch` below 1.

            >>> notes = (Document(str(i), f"Note number {i}.") for i in range(100, 300))
            >>> for result in client.ingest("notes", notes):
            ...     if result.error:
            ...         print(result.id, result.error)
            >>> client.count("notes")
            202
        """
        return self._ingest(Batches(collection, batch, mode, durability, request_id), documents, timeout)

    def set_payload(
        self,
        collection: str,
        ids: Id | Iterable[Id] | None = None,
        payload: Payload | None = None,
        *,
        filter: str | Filter | None = None,
        remove: str | Iterable[str] = (),
        replace: bool = False,
        expected_versions: Mapping[Any, int] | None = None,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> PayloadSet:
        """Sets fields of stored documents and removes others; title, text and vectors stay, and nothing is encoded.

        Each document is changed as one unit, and no change that another client makes at the same time is lost. A
        document that cannot be changed is answered as `WriteStatus.FAILED` and does not stop the others.

        With a filter the documents that match when the call begins are changed, as many as they are, and counted; one
        that matches no more when its turn comes is left alone. A call that runs out of time has changed a part of them,
        and the same call goes on from there.

        - `collection`: where the documents are.
        - `ids`: one id, or 1 to `limits.batch_max` (1024) of them, each once. Default: none.
        - `payload`: these fields get these values, whether they are new or not. Default: none.
        - `remove`: name of a field, or names of fields, to remove where they are; none of them may be in `payload`.
          Default: none.
        - `filter`: a condition, as text or made with `field`, that the documents match. Default: none.
        - `replace`: `payload` becomes the whole payload; `remove` must be empty then. Default `False`.
        - `expected_versions`: the version that a document must have to be changed, by id, which is one of `ids`. One
          that has another version is answered as failed. Default: any version.
        - `durability`, `request_id`: as in `upsert`.

        Raises `InvalidArgument` where nothing is to be changed, and `TypeError` or `ValueError` where a value cannot
        be stored, or unless exactly one of `ids` and `filter` is given.

            >>> done = client.set_payload("notes", ["1", "9"], {"year": 2022}, remove="tags")
            >>> [(r.id, r.status.value) for r in done.results], done.missing
            ([('1', 'updated')], ('9',))
            >>> done = client.set_payload("notes", filter="year >= 2000", payload={"recent": True})
            >>> done.changed, done.failed
            (2, 0)
        """
        request = messages.set_payload(
            collection, ids, payload, remove, replace, filter, expected_versions, durability, request_id
        )
        answer = self._call(m.SET_PAYLOAD, request, timeout)
        messages.hinted(answer.hints)
        return messages.payload_set(answer)

    def unset_payload(
        self,
        collection: str,
        ids: Id | Iterable[Id] | None = None,
        fields: str | Iterable[str] = (),
        *,
        filter: str | Filter | None = None,
        all: bool = False,
        expected_versions: Mapping[Any, int] | None = None,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> PayloadSet:
        """Removes fields of stored documents, or all of them; else as `set_payload`.

        - `collection`: where the documents are.
        - `ids`: one id, or 1 to `limits.batch_max` (1024) of them, each once. Default: none.
        - `fields`: name of a field, or names of fields; one that is not there is no error. Default: none.
        - `filter`: a condition, as text or made with `field`, that the documents match. Default: none.
        - `all`: every field goes; `fields` must be empty then. Default `False`.
        - `expected_versions`: as in `set_payload`.
        - `durability`, `request_id`: as in `upsert`.

        Raises `InvalidArgument` unless either `fields` or `all` is given, and `TypeError` unless exactly one of `ids`
        and `filter` is.

            >>> done = client.unset_payload("notes", ["1", "2"], "year")
            >>> done.changed
            2
        """
        request = messages.unset_payload(
            collection, ids, fields, all, filter, expected_versions, durability, request_id
        )
        answer = self._call(m.UNSET_PAYLOAD, request, timeout)
        messages.hinted(answer.hints)
        return messages.payload_set(answer)

    def get(
        self,
        collection: str,
        ids: Id | Iterable[Id],
        *,
        with_vectors: bool = False,
        timeout: float | None = None,
    ) -> Fetched:
        """Fetches documents by id: those found, in the order asked, and the ids that are missing.

        - `collection`: where the documents are.
        - `ids`: one id, or 1 to `limits.batch_max` (1024) of them; one that stands twice is answered once.
        - `with_vectors`: the documents bring their vectors. Default `False`.

            >>> found = client.get("notes", ["1", "9"])
            >>> found.documents[0].text, found.missing
            ('The cat sleeps on the sofa.', ('9',))
        """
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
        expected_versions: Mapping[Any, int] | None = None,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Counted:
        """Deletes documents by id or by filter and answers how many there were.

        The number carries the server's `hints` on the filter, which are `FilterHint` warnings too.

        - `collection`: where the documents are.
        - `ids`: one id, or 1 to `limits.batch_max` (1024) of them. Default: none.
        - `filter`: a condition, as text or made with `field`, that the documents match. Default: none.
        - `expected_versions`: the version that a document must have, by id, which is one of `ids`. Where one has
          another version, or is not there, nothing is deleted. Default: any version.
        - `durability`, `request_id`: as in `upsert`.

        Raises `TypeError` unless exactly one of `ids` and `filter` is given, and `FailedPrecondition` where a version
        is not the one that is expected.

            >>> client.delete("notes", filter=field("year") < 2023)
            1
        """
        request = messages.delete_documents(collection, ids, filter, expected_versions, durability, request_id)
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
        """Yields every document that matches, ordered by id.

        - `collection`: where the documents are.
        - `filter`: a condition, as text or made with `field`. Default: all documents.
        - `page`: number of documents fetched at a time, 1 to `limits.batch_max` (1024). Default 100.
        - `with_text`: the documents bring their texts. Default `True`.
        - `with_vectors`: the documents bring their vectors. Default `False`.
        - `timeout`: seconds for each page. Default: the client's.

            >>> [document.id for document in client.scroll("notes", filter="year >= 2000")]
            ['1', '2']
        """
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
        """Counts the documents of a `collection` that match a `filter`, or all of them where there is none.

        The number carries the server's `hints` on the filter, as `delete` has them.

            >>> client.count("notes", filter=field("year") >= 2024)
            1
        """
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
        """Finds the `k` documents nearest to a text, a vector, or a stored document, best first.

        There are fewer hits only where fewer documents match `filter` or reach `threshold`. What the server remarks
        on the filter, such as a field that no document has, is in the answer's `hints` and a `FilterHint` warning.

        - `collection`: what is searched.
        - `text`: the question, not empty, at most `limits.query_bytes_max` (32 KiB) as UTF-8.
        - `vector`: the question as finite numbers, as many as the collection's dimension; a list, a NumPy array, or
          what `embed` gave.
        - `like`: id of a stored document; documents like it are found, and it is left out.
        - `k`: number of hits, 1 to `limits.k_max` (1000). Default 10.
        - `filter`: only documents that match this condition, as text or made with `field`. Default: all.
        - `ef`: number of candidates that the graph keeps, 1 to 4096, raised to `k` where it is less; more finds
          better and takes longer. Default: the collection's.
        - `exact`: compares with every vector instead of walking the graph. Default `False`.
        - `threshold`: leaves out hits with a lower score, finite, in the units of the collection's metric. Default:
          none.
        - `by_passage`: gives one hit per passage instead of one per document. Default `False`.
        - `with_payload`: the hits bring their payloads. Default `True`.
        - `with_text`: the hits bring their passages' texts. Default `True`.
        - `explain`: the answer says how it was found and how long that took. Default `False`.

        Raises `TypeError` unless exactly one of `text`, `vector` and `like` is given; `NotFound`, `InvalidArgument`.

            >>> hits = client.search("notes", "The cat sleeps on the sofa.", k=1, filter=field("year") >= 2000)
            >>> hits[0].id, hits[0].payload["year"]
            ('1', 2021)
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
        """Makes several searches at once and answers them in order; one bad query refuses all of them.

        - `queries`: 1 to `limits.queries_max` (256) of them.

            >>> asked = [Query("notes", "a resting animal", k=1), Query("notes", like="1", k=2)]
            >>> [len(result) for result in client.search_batch(asked)]
            [1, 1]
        """
        request = search_pb2.SearchBatchRequest(requests=[messages.search(query) for query in queries])
        answer = self._call(m.SEARCH_BATCH, request, timeout)
        messages.hinted(hint for wire in answer.responses for hint in wire.hints)
        return [messages.search_result(wire) for wire in answer.responses]

    def embed(
        self, texts: Sequence[str], *, kind: TextKind = TextKind.RAW, model: str = "", timeout: float | None = None
    ) -> Embeddings:
        """Turns texts into vectors, in their order. Raises `NotFound` for a model that the server does not have.

        - `texts`: 1 to `limits.batch_max` (1024) of them, none empty, each at most `limits.text_bytes_max` (4 MiB) as
          UTF-8.
        - `kind`: which of the model's prompts goes in front of each. Default `TextKind.RAW`: none.
        - `model`: name of one of the server's models. Default: the server's default model.

            >>> embeddings = client.embed(["one text", "another text"], kind=TextKind.QUERY)
            >>> len(embeddings), embeddings[0].truncated
            (2, False)
        """
        return messages.embeddings(self._call(m.EMBED, messages.embed(texts, kind, model), timeout))

    def similarity(
        self, text: str, others: Sequence[str], *, model: str = "", timeout: float | None = None
    ) -> list[float]:
        """Answers the cosine of a text and each of the others, -1 to 1, in their order.

        - `text`: what the others are compared with.
        - `others`: 1 to 1023 texts (one less than `limits.batch_max`), each as `embed` takes it.
        - `model`: name of one of the server's models. Default: the server's default model.

            >>> [round(score, 3) for score in client.similarity("a cat", ["a cat"])]
            [1.0]
        """
        request = encoder_pb2.SimilarityRequest(text=text, others=messages.text_list(others), model=model)
        return list(self._call(m.SIMILARITY, request, timeout).scores)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Lists the encoders that the server has, loaded or not.

        >>> [model.default for model in client.models()].count(True)
        1
        """
        answer = self._call(m.MODELS, encoder_pb2.ModelsRequest(), timeout)
        return [messages.model(wire) for wire in answer.models]

    def use_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Makes the server's model of this `name` its default, without a pause, until the server ends.

        Collections keep the model they were made with. Raises `NotFound`; the default then stays what it was.
        """
        request = encoder_pb2.UseModelRequest(name=name)
        return messages.model(self._call(m.USE_MODEL, request, timeout).model)

    def create_backup(
        self,
        name: str,
        collections: Iterable[str] = (),
        *,
        copy: bool = False,
        timeout: float | None = math.inf,
    ) -> Backup:
        """Makes a backup in the server's folder for backups, while reads and writes go on.

        Everything that was acknowledged before is in it, and each collection is as of one moment.

        - `name`: of the backup, named like a collection. It must be new: no backup is ever replaced.
        - `collections`: names or aliases of those that go into it. Default: all.
        - `copy`: every file is copied. By default, files of segments get a second name (a hard link) where the file
          system allows that, which takes no room, and the backup shares them with the data folder. Default `False`.
        - `timeout`: seconds, above 0; a call that ends early leaves nothing. Default: no limit.

        Raises `FailedPrecondition` where the server has no such folder (its setting `data.backups`), `AlreadyExists`,
        `NotFound` for a collection, `Overloaded` while another backup is made, and `DataLoss`, naming the file, if
        something of a collection is damaged.

            >>> made = client.create_backup("monday", ["notes"])
            >>> made.collections[0].name, made.collections[0].documents
            ('notes', 2)
        """
        request = backups_pb2.CreateBackupRequest(name=name, collections=list(collections), copy=copy)
        answer = self._call(m.CREATE_BACKUP, request, timeout)
        return messages.backup(answer.backup, answer.linked_bytes)

    def backups(self, *, timeout: float | None = None) -> list[Backup]:
        """Lists the backups in the server's folder for backups, ordered by name.

        Raises `FailedPrecondition` where the server has none (its setting `data.backups`).

            >>> names = [backup.name for backup in client.backups()]
        """
        answer = self._call(m.BACKUPS, backups_pb2.ListBackupsRequest(), timeout)
        return [messages.backup(wire) for wire in answer.backups]

    def restore_backup(
        self,
        name: str,
        collection: str = "",
        *,
        rename: str = "",
        aliases: bool = False,
        timeout: float | None = math.inf,
    ) -> list[Restored]:
        """Makes collections of those in a backup, each compared with what the backup says of it before it can be seen.

        - `name`: of the backup.
        - `collection`: its name in the backup. Default: all of them.
        - `rename`: a new name, where one collection is restored. Default: the name that it had.
        - `aliases`: points the aliases that it had at it; one that leads to another collection is refused. Default
          `False`.
        - `timeout`: seconds, above 0; a call that ends early leaves those that were finished. Default: no limit.

        Raises `NotFound`, `AlreadyExists` for a name that is taken (nothing is replaced), and `DataLoss`, naming the
        file, for a backup that is damaged.

            >>> made = client.create_backup("tuesday", ["notes"])
            >>> restored = client.restore_backup("tuesday", "notes", rename="notes-tuesday")
            >>> client.count(restored[0].collection.name)
            2
        """
        request = backups_pb2.RestoreBackupRequest(name=name, collection=collection, rename=rename, aliases=aliases)
        answer = self._call(m.RESTORE_BACKUP, request, timeout)
        return [messages.restored(wire) for wire in answer.collections]

    def health(self, service: str = "", *, timeout: float | None = None) -> HealthStatus:
        """Asks the server for its state.

        - `service`: one service, such as `distilface.v1.Search`. Default: the whole server.

        Raises `NotFound` for a service that the server does not have.

            >>> client.health().value
            'serving'
        """
        request = wire_pb2.HealthCheckRequest(service=service)
        return messages.health_status(self._call(m.HEALTH, request, timeout))

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Waits until the server is serving.

        - `timeout`: seconds to wait at most, 0 or more. Default 30.

        Raises `Unavailable` if the server is not ready by then.

            >>> client.wait_ready(timeout=5)
        """
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
