"""Arguments -> requests and responses -> data, for both clients. Knows the wire's messages, not how they travel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from ._generated import collections_pb2, common_pb2, documents_pb2, encoder_pb2, search_pb2, wire_pb2
from .errors import Unavailable
from .filters import to_filter
from .payload import from_payload, from_timestamp, to_payload
from .types import (
    Chunking,
    CollectionInfo,
    CollectionStats,
    Document,
    Embedding,
    Embeddings,
    Explain,
    FieldStats,
    HealthStatus,
    Hit,
    IndexConfig,
    IndexKind,
    Metric,
    Model,
    Passage,
    Query,
    SearchResult,
    StoredDocument,
    TextKind,
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
_STATUSES = {
    documents_pb2.WRITE_STATUS_INSERTED: WriteStatus.INSERTED,
    documents_pb2.WRITE_STATUS_UPDATED: WriteStatus.UPDATED,
    documents_pb2.WRITE_STATUS_UNCHANGED: WriteStatus.UNCHANGED,
    documents_pb2.WRITE_STATUS_FAILED: WriteStatus.FAILED,
}


def create_collection(
    name: str,
    dimension: int | None,
    metric: Metric,
    index: IndexConfig | None,
    chunking: Chunking | None,
    vectors_only: bool,
    model: str,
    if_not_exists: bool,
) -> collections_pb2.CreateCollectionRequest:
    """`Collections.Create`."""
    index = index or IndexConfig()
    chunking = chunking or Chunking()
    return collections_pb2.CreateCollectionRequest(
        config=collections_pb2.CollectionConfig(
            name=name,
            dimension=dimension or 0,
            metric=_METRICS[Metric(metric)],
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
    """A collection from the wire."""
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
    )


def collection_stats(wire: collections_pb2.CollectionStatsResponse) -> CollectionStats:
    """Counts from the wire."""
    return CollectionStats(
        documents=wire.documents,
        passages=wire.passages,
        indexed=wire.indexed,
        tombstones=wire.tombstones,
        disk_bytes=wire.disk_bytes,
        vector_bytes=wire.vector_bytes,
        fields=tuple(FieldStats(f.field, tuple(f.types), f.documents) for f in wire.fields),
    )


def document(given: Document) -> documents_pb2.Document:
    """A document for the wire. Raises `TypeError` or `ValueError` where a payload value cannot be stored."""
    wire = documents_pb2.Document(
        id=given.id,
        title=given.title,
        text=given.text,
        payload=to_payload(given.payload, f"document {given.id!r}"),
    )
    if given.vector is not None:
        wire.vector.CopyFrom(vector(given.vector))
    return wire


def vector(values: Iterable[float]) -> common_pb2.Vector:
    """A vector for the wire; lists, tuples and NumPy arrays alike."""
    return common_pb2.Vector(values=(float(value) for value in values))


def stored_document(wire: documents_pb2.StoredDocument) -> StoredDocument:
    """A stored document from the wire."""
    body = wire.document
    return StoredDocument(
        id=body.id,
        text=body.text,
        title=body.title,
        payload=from_payload(body.payload),
        vector=tuple(body.vector.values) if body.HasField("vector") else None,
        passages=tuple(_passage(p) for p in wire.passages),
        updated_at=from_timestamp(wire.updated_at),
    )


def write_result(wire: documents_pb2.DocumentResult) -> WriteResult:
    """What became of a document, from the wire."""
    return WriteResult(
        id=wire.id,
        status=_STATUSES[wire.status],
        error=wire.error,
        passages=wire.passages,
        tokens=wire.tokens,
        truncated=wire.truncated,
    )


def delete_documents(
    collection: str, ids: str | Iterable[str] | None, filter: Any
) -> documents_pb2.DeleteDocumentsRequest:
    """`Documents.Delete`. Raises `TypeError` unless either ids or a filter is given."""
    if (ids is None) == (filter is None):
        raise TypeError("delete needs either ids or a filter")
    return documents_pb2.DeleteDocumentsRequest(
        collection=collection, ids=id_list(ids) if ids is not None else None, filter=to_filter(filter)
    )


def id_list(ids: str | Iterable[str]) -> list[str]:
    """Ids for the wire; one id alone is not taken for the list of its letters."""
    return [ids] if isinstance(ids, str) else list(ids)


def search(query: Query) -> search_pb2.SearchRequest:
    """`Search.Search`. Raises `TypeError` unless exactly one of text, vector and like is given."""
    if sum(asked is not None for asked in (query.text, query.vector, query.like)) != 1:
        raise TypeError("search for exactly one of text, vector and like")
    request = search_pb2.SearchRequest(
        collection=query.collection,
        text=query.text,
        vector=vector(query.vector) if query.vector is not None else None,
        document_id=query.like,
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
    """Hits from the wire."""
    return SearchResult(
        hits=tuple(
            Hit(
                id=hit.id,
                score=hit.score,
                title=hit.title,
                passage=_passage(hit.passage),
                payload=from_payload(hit.payload),
            )
            for hit in wire.hits
        ),
        tokens=wire.query.tokens,
        truncated=wire.query.truncated,
        explain=_explain(wire.explain) if wire.HasField("explain") else None,
    )


def embed(texts: Sequence[str], kind: TextKind, model: str) -> encoder_pb2.EmbedRequest:
    """`Encoder.Embed`."""
    return encoder_pb2.EmbedRequest(texts=text_list(texts), kind=_TEXT_KINDS[TextKind(kind)], model=model)


def text_list(texts: Sequence[str]) -> list[str]:
    """Texts for the wire. Raises `TypeError` for one text, which would be taken for the list of its letters."""
    if isinstance(texts, str):
        raise TypeError("a list of texts is needed; put a single one in brackets")
    return list(texts)


def embeddings(wire: encoder_pb2.EmbedResponse) -> Embeddings:
    """Embeddings from the wire."""
    return Embeddings(
        embeddings=tuple(Embedding(tuple(e.values), e.tokens, e.truncated) for e in wire.embeddings),
        model=wire.model,
        model_fingerprint=wire.model_fingerprint,
    )


def model(wire: encoder_pb2.Model) -> Model:
    """A model from the wire."""
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


def health_status(wire: wire_pb2.HealthCheckResponse) -> HealthStatus:
    """The server's state from the wire."""
    return HealthStatus(wire_pb2.HealthCheckResponse.ServingStatus.Name(wire.status).lower())


def not_ready(timeout: float) -> Unavailable:
    """The error of a server that did not begin to serve."""
    return Unavailable(f"the server was not ready within {timeout:g} s", code=grpc.StatusCode.UNAVAILABLE)


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
    )
