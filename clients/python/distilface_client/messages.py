"""Turns arguments into requests and responses into data. Knows the wire's messages, not how they travel."""

from __future__ import annotations

import numbers
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from ._generated import backups_pb2, collections_pb2, common_pb2, documents_pb2, encoder_pb2, search_pb2, wire_pb2
from .errors import DistilfaceError, Unavailable
from .filters import to_filter
from .payload import Payload, from_payload, from_timestamp, text, to_payload
from .types import (
    Backup,
    BackupCollection,
    Chunking,
    CollectionInfo,
    CollectionStats,
    Counted,
    Document,
    DocumentLike,
    Durability,
    Embedding,
    Embeddings,
    Explain,
    FieldStats,
    FilterHint,
    HealthStatus,
    Hit,
    Id,
    IndexConfig,
    IndexKind,
    Metric,
    Model,
    Passage,
    PayloadSet,
    Query,
    Restored,
    SearchResult,
    StoredDocument,
    TextKind,
    WriteMode,
    WriteResult,
    WriteStatus,
)

_METRICS = {
    Metric.COSINE: common_pb2.METRIC_COSINE,
    Metric.DOT: common_pb2.METRIC_DOT,
    Metric.EUCLIDEAN: common_pb2.METRIC_EUCLIDEAN,
}
_METRICS_BACK = {wire: metric for metric, wire in _METRICS.items()}
_INDEXES = {
    IndexKind.DEFAULT: collections_pb2.INDEX_KIND_UNSPECIFIED,
    IndexKind.FLAT: collections_pb2.INDEX_KIND_FLAT,
    IndexKind.HNSW_RS: collections_pb2.INDEX_KIND_HNSW_RS,
}
_INDEXES_BACK = {wire: kind for kind, wire in _INDEXES.items()}
_TEXT_KINDS = {
    TextKind.RAW: encoder_pb2.TEXT_KIND_UNSPECIFIED,
    TextKind.QUERY: encoder_pb2.TEXT_KIND_QUERY,
    TextKind.DOCUMENT: encoder_pb2.TEXT_KIND_DOCUMENT,
}
_MODES = {
    WriteMode.ANY: documents_pb2.WRITE_MODE_UNSPECIFIED,
    WriteMode.INSERT_ONLY: documents_pb2.WRITE_MODE_INSERT_ONLY,
    WriteMode.REPLACE_ONLY: documents_pb2.WRITE_MODE_REPLACE_ONLY,
}

_DURABILITIES: dict[Durability, documents_pb2.Durability] = {
    Durability.POWER: documents_pb2.DURABILITY_POWER,
    Durability.PROCESS: documents_pb2.DURABILITY_PROCESS,
}
_STATUSES = {
    documents_pb2.WRITE_STATUS_INSERTED: WriteStatus.INSERTED,
    documents_pb2.WRITE_STATUS_UPDATED: WriteStatus.UPDATED,
    documents_pb2.WRITE_STATUS_UNCHANGED: WriteStatus.UNCHANGED,
    documents_pb2.WRITE_STATUS_FAILED: WriteStatus.FAILED,
}


def create_collection(
    name: str,
    dimension: int | None,
    metric: Metric | None,
    index: IndexConfig | None,
    chunking: Chunking | None,
    vectors_only: bool,
    model: str,
    if_not_exists: bool,
) -> collections_pb2.CreateCollectionRequest:
    """Makes the request of `Collections.Create`."""
    index = index or IndexConfig()
    chunking = chunking or Chunking()
    return collections_pb2.CreateCollectionRequest(
        config=collections_pb2.CollectionConfig(
            name=name,
            dimension=dimension or 0,
            metric=common_pb2.METRIC_UNSPECIFIED if metric is None else _METRICS[Metric(metric)],
            index=collections_pb2.IndexConfig(
                kind=_INDEXES[IndexKind(index.kind)],
                m=index.m,
                ef_construction=index.ef_construction,
                ef_search=index.ef_search,
            ),
            chunking=collections_pb2.ChunkingConfig(
                disabled=chunking.disabled,
                max_tokens=chunking.max_tokens,
                overlap_tokens=chunking.overlap_tokens,
            ),
            vectors_only=vectors_only,
            model=model,
        ),
        if_not_exists=if_not_exists,
    )


def collection_info(wire: collections_pb2.Collection) -> CollectionInfo:
    """Reads a collection from the wire."""
    config = wire.config
    return CollectionInfo(
        name=config.name,
        dimension=config.dimension,
        metric=_METRICS_BACK.get(config.metric, Metric.COSINE),
        index=IndexConfig(
            kind=_INDEXES_BACK.get(config.index.kind, IndexKind.DEFAULT),
            m=config.index.m,
            ef_construction=config.index.ef_construction,
            ef_search=config.index.ef_search,
        ),
        chunking=Chunking(
            disabled=config.chunking.disabled,
            max_tokens=config.chunking.max_tokens,
            overlap_tokens=config.chunking.overlap_tokens,
        ),
        vectors_only=config.vectors_only,
        model=wire.model,
        model_fingerprint=wire.model_fingerprint,
        created_at=from_timestamp(wire.created_at),
        aliases=tuple(wire.aliases),
        damage=wire.damage,
    )


def collection_stats(wire: collections_pb2.CollectionStatsResponse) -> CollectionStats:
    """Reads counts from the wire."""
    return CollectionStats(
        documents=wire.documents,
        passages=wire.passages,
        indexed=wire.indexed,
        tombstones=wire.tombstones,
        disk_bytes=wire.disk_bytes,
        vector_bytes=wire.vector_bytes,
        fields=tuple(FieldStats(f.field, tuple(f.types), f.documents) for f in wire.fields),
        fields_total=wire.fields_total,
        next_fields_page_token=wire.next_fields_page_token,
        segments=wire.segments,
        dead_documents=wire.dead_documents,
        unsealed_bytes=wire.unsealed_bytes,
    )


def document(given: DocumentLike) -> documents_pb2.Document:
    """Makes a document for the wire.

    Raises `TypeError` or `ValueError`, with the document's id and the field, where something cannot be stored.
    """
    document = given if isinstance(given, Document) else _document_of(given)
    name = document_id(document.id)
    owner = f"document {name!r}"
    wire = documents_pb2.Document(
        id=name,
        title=text(document.title, f"{owner}, title"),
        text=text(document.text, f"{owner}, text"),
        payload=to_payload(document.payload, owner),
    )
    if document.vector is not None:
        wire.vector.CopyFrom(vector(document.vector, f"{owner}, vector"))
    if document.expected_version is not None:
        wire.expected_version = version(document.expected_version, f"{owner}, expected_version")
    return wire


def version(given: object, where: str) -> int:
    """Makes a version for the wire. Raises `TypeError` or `ValueError`, with `where`, for what cannot be one."""
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{where}: a version is an int, not {type(given).__name__}; give the one that was read")
    if not 0 < given < 1 << 64:
        raise ValueError(f"{where}: {given} is no version; give the one that was read, or leave it out")
    return given


def version_map(given: Mapping[Any, int] | None) -> dict[str, int]:
    """Makes the versions that are expected of ids for the wire."""
    return {
        document_id(one): version(expected, f"expected_versions[{one!r}]") for one, expected in (given or {}).items()
    }


def write_mode(mode: WriteMode) -> documents_pb2.WriteMode:
    """Makes a mode for the wire. Raises `ValueError` for what is none."""
    return _MODES[WriteMode(mode)]


def durability_of(durability: Durability) -> documents_pb2.Durability:
    """Makes a durability for the wire. Raises `ValueError` for what is none."""
    return _DURABILITIES[Durability(durability)]


def _document_of(given: Mapping[str, Any]) -> Document:
    """Makes a document of a dict with the fields of `Document`; those that are None count as left out."""
    if not isinstance(given, Mapping):
        raise TypeError(f"a document is a Document or a dict, not {type(given).__name__}")
    if given.get("id") is None:
        raise TypeError(
            "a document needs an id; of id, text, title, payload, vector and expected_version it is the required one"
        )
    for key in given:
        if key not in Document.__dataclass_fields__:
            raise TypeError(
                f"document {given['id']!r}: a document has no field {key!r}, only id, text, title, payload, vector and "
                "expected_version; put it into the payload"
            )
    return Document(**{key: value for key, value in given.items() if value is not None})


def document_id(given: object) -> str:
    """Makes an id for the wire of a text, an integer or a UUID."""
    if isinstance(given, (int, uuid.UUID)) and not isinstance(given, bool):
        return str(given)
    if isinstance(given, numbers.Integral) and not isinstance(given, bool):
        return str(int(given))
    if isinstance(given, str):
        return text(given, "document id")
    raise TypeError(f"document id {given!r}: an id is a str or an int, not {type(given).__name__}")


def failed(given: object, place: int, error: Exception) -> WriteResult:
    """Makes the result of a document that was not sent; `place` counts the documents of the stream from 1."""
    name = given.get("id") if isinstance(given, Mapping) else getattr(given, "id", None)
    # What cannot be an id still tells which document it was.
    shown = "" if name is None else str(name).encode("utf-8", "backslashreplace").decode()
    return WriteResult(
        id=shown,
        status=WriteStatus.FAILED,
        error=f"document {place} of the stream was not sent: {error}",
        passages=0,
        tokens=0,
        truncated=False,
    )


def vector(values: Any, where: str = "vector") -> common_pb2.Vector:
    """Makes a vector for the wire of a list, a tuple, a NumPy array, or what `embed` gave."""
    values = getattr(values, "values", values) if isinstance(values, Embedding) else values
    to_list: Any = getattr(values, "tolist", None)
    listed: Any = to_list() if to_list is not None else values
    try:
        return common_pb2.Vector(values=[float(value) for value in listed])
    except (TypeError, ValueError):
        raise TypeError(f"{where}: a flat list of numbers is needed") from None


def stored_document(wire: documents_pb2.StoredDocument) -> StoredDocument:
    """Reads a stored document from the wire."""
    body = wire.document
    return StoredDocument(
        id=body.id,
        text=body.text,
        title=body.title,
        payload=from_payload(body.payload),
        vector=tuple(body.vector.values) if body.HasField("vector") else None,
        passages=tuple(_passage(p) for p in wire.passages),
        updated_at=from_timestamp(wire.updated_at),
        version=wire.version,
    )


def write_result(wire: documents_pb2.DocumentResult) -> WriteResult:
    """Reads from the wire what became of a document."""
    return WriteResult(
        id=wire.id,
        status=_STATUSES[wire.status],
        error=wire.error,
        passages=wire.passages,
        tokens=wire.tokens,
        truncated=wire.truncated,
        title_truncated=wire.title_truncated,
        unknown_tokens=wire.unknown_tokens,
        version=wire.version,
        error_kind=wire.error_kind,
    )


def set_payload(
    collection: str,
    ids: Id | Iterable[Id] | None,
    payload: Payload | None,
    remove: str | Iterable[str],
    replace: bool,
    filter: Any,
    expected_versions: Mapping[Any, int] | None,
    durability: Durability,
    request_id: str | None,
) -> documents_pb2.SetPayloadRequest:
    """Makes the request of `Documents.SetPayload`.

    Raises `TypeError` unless either ids or a filter is given, and `TypeError` or `ValueError` where a payload value
    cannot be stored.
    """
    if (ids is None) == (filter is None):
        raise TypeError("set_payload needs either ids or a filter")
    return documents_pb2.SetPayloadRequest(
        collection=collection,
        ids=id_list(ids) if ids is not None else None,
        filter=to_filter(filter),
        expected_versions=version_map(expected_versions),
        payload=to_payload(payload or {}, "payload"),
        remove_fields=[remove] if isinstance(remove, str) else list(remove),
        replace=replace,
        durability=durability_of(durability),
        request_id=request_id or "",
    )


def unset_payload(
    collection: str,
    ids: Id | Iterable[Id] | None,
    fields: str | Iterable[str],
    all: bool,
    filter: Any,
    expected_versions: Mapping[Any, int] | None,
    durability: Durability,
    request_id: str | None,
) -> documents_pb2.UnsetPayloadRequest:
    """Makes the request of `Documents.UnsetPayload`. Raises `TypeError` unless either ids or a filter is given."""
    if (ids is None) == (filter is None):
        raise TypeError("unset_payload needs either ids or a filter")
    return documents_pb2.UnsetPayloadRequest(
        collection=collection,
        ids=id_list(ids) if ids is not None else None,
        filter=to_filter(filter),
        expected_versions=version_map(expected_versions),
        fields=[fields] if isinstance(fields, str) else list(fields),
        all=all,
        durability=durability_of(durability),
        request_id=request_id or "",
    )


def payload_set(wire: documents_pb2.SetPayloadResponse) -> PayloadSet:
    """Reads from the wire what `Documents.SetPayload` did."""
    return PayloadSet(
        results=tuple(write_result(result) for result in wire.results),
        missing=tuple(wire.missing),
        matched=wire.matched,
        changed=wire.changed,
        unchanged=wire.unchanged,
        failed=wire.failed,
        hints=tuple(wire.hints),
    )


def delete_documents(
    collection: str,
    ids: Id | Iterable[Id] | None,
    filter: Any,
    expected_versions: Mapping[Any, int] | None,
    durability: Durability,
    request_id: str | None,
) -> documents_pb2.DeleteDocumentsRequest:
    """Makes the request of `Documents.Delete`. Raises `TypeError` unless either ids or a filter is given."""
    if (ids is None) == (filter is None):
        raise TypeError("delete needs either ids or a filter")
    return documents_pb2.DeleteDocumentsRequest(
        collection=collection,
        ids=id_list(ids) if ids is not None else None,
        filter=to_filter(filter),
        expected_versions=version_map(expected_versions),
        durability=durability_of(durability),
        request_id=request_id or "",
    )


def id_list(ids: Id | Iterable[Id]) -> list[str]:
    """Makes ids for the wire; one id alone is not taken for the list of its letters."""
    if isinstance(ids, Iterable) and not isinstance(ids, str):
        return [document_id(one) for one in ids]
    return [document_id(ids)]


def hinted(hints: Iterable[str]) -> tuple[str, ...]:
    """Warns of the server's remarks on a filter, and gives them: an empty answer alone would not tell of them."""
    told = tuple(hints)
    for hint in told:
        # 1 is here, 2 the client, 3 whoever called it.
        warnings.warn(hint, FilterHint, stacklevel=3)
    return told


def counted(number: int, hints: Iterable[str]) -> Counted:
    """Makes a number of documents that carries the server's remarks on the filter."""
    return Counted(number, tuple(hints))


def search(query: Query) -> search_pb2.SearchRequest:
    """Makes the request of `Search.Search`.

    Raises `TypeError` unless exactly one of text, vector and like is given.
    """
    if sum(asked is not None for asked in (query.text, query.vector, query.like)) != 1:
        raise TypeError("search for exactly one of text, vector and like")
    request = search_pb2.SearchRequest(
        collection=query.collection,
        text=text(query.text, "text") if query.text is not None else None,
        vector=vector(query.vector) if query.vector is not None else None,
        document_id=document_id(query.like) if query.like is not None else None,
        k=query.k,
        filter=to_filter(query.filter),
        ef=query.ef or 0,
        exact=query.exact,
        score_threshold=query.threshold,
        by_passage=query.by_passage,
        without_payload=not query.with_payload,
        without_text=not query.with_text,
        explain=query.explain,
    )
    return request


def search_result(wire: search_pb2.SearchResponse) -> SearchResult:
    """Reads hits from the wire."""
    return SearchResult(
        hits=tuple(
            Hit(
                id=hit.id,
                score=hit.score,
                title=hit.title,
                passage=_passage(hit.passage),
                payload=from_payload(hit.payload),
                version=hit.version,
            )
            for hit in wire.hits
        ),
        tokens=wire.query.tokens,
        truncated=wire.query.truncated,
        explain=_explain(wire.explain) if wire.HasField("explain") else None,
        hints=tuple(wire.hints),
    )


def embed(texts: Sequence[str], kind: TextKind, model: str) -> encoder_pb2.EmbedRequest:
    """Makes the request of `Encoder.Embed`."""
    return encoder_pb2.EmbedRequest(texts=text_list(texts), kind=_TEXT_KINDS[TextKind(kind)], model=model)


def text_list(texts: Sequence[str]) -> list[str]:
    """Makes texts for the wire. Raises `TypeError` for one text, which would be taken for the list of its letters."""
    if isinstance(texts, str):
        raise TypeError("a list of texts is needed; put a single one in brackets")
    return [text(one, f"text {i}") for i, one in enumerate(texts, 1)]


def embeddings(wire: encoder_pb2.EmbedResponse) -> Embeddings:
    """Reads embeddings from the wire."""
    return Embeddings(
        embeddings=tuple(Embedding(tuple(e.values), e.tokens, e.truncated, e.unknown_tokens) for e in wire.embeddings),
        model=wire.model,
        model_fingerprint=wire.model_fingerprint,
    )


def model(wire: encoder_pb2.Model) -> Model:
    """Reads a model from the wire."""
    return Model(
        name=wire.name,
        architecture=wire.architecture,
        dimension=wire.dimension,
        max_tokens=wire.max_tokens,
        pooling=wire.pooling,
        fingerprint=wire.fingerprint,
        licence=wire.licence,
        loaded=wire.loaded,
        device=wire.device,
        device_reason=wire.device_reason,
        default=wire.default,
    )


def backup(wire: backups_pb2.Backup, linked_bytes: int = 0) -> Backup:
    """Reads a backup from the wire."""
    return Backup(
        name=wire.name,
        made_at=from_timestamp(wire.made_at) if wire.HasField("made_at") else None,
        version=wire.version,
        collections=tuple(
            BackupCollection(one.name, one.documents, one.passages, one.bytes, tuple(one.aliases))
            for one in wire.collections
        ),
        bytes=wire.bytes,
        folder=wire.folder,
        damage=wire.damage,
        linked_bytes=linked_bytes,
    )


def restored(wire: backups_pb2.RestoredCollection) -> Restored:
    """Reads a restored collection from the wire."""
    return Restored(
        collection=collection_info(wire.collection),
        source=wire.source,
        documents=wire.documents,
        passages=wire.passages,
        aliases_left=tuple(wire.aliases_left),
        missing_model=wire.missing_model,
    )


def health_status(wire: wire_pb2.HealthCheckResponse) -> HealthStatus:
    """Reads the server's state from the wire."""
    return HealthStatus(wire_pb2.HealthCheckResponse.ServingStatus.Name(wire.status).lower())


def not_ready(timeout: float, failure: DistilfaceError | None) -> Unavailable:
    """Makes the error of a server that did not begin to serve, with what it said last."""
    said = f": {failure.message}" if failure else ""
    request_id = failure.request_id if failure else ""
    message = f"the server was not ready within {timeout:g} s{said}"
    return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE, request_id=request_id)


def _passage(wire: common_pb2.Passage) -> Passage:
    return Passage(ordinal=wire.ordinal, start=wire.start, end=wire.end, text=wire.text)


def _explain(wire: search_pb2.Explain) -> Explain:
    return Explain(
        tokenize_us=wire.tokenize_us,
        queue_us=wire.queue_us,
        encode_us=wire.encode_us,
        filter_us=wire.filter_us,
        search_us=wire.search_us,
        fetch_us=wire.fetch_us,
        total_us=wire.total_us,
        plan=wire.plan,
        reason=wire.reason,
        matching_documents=wire.matching_documents,
        scanned=wire.scanned,
        ef=wire.ef,
        device=wire.device,
        encode_cached=wire.encode_cached,
    )
