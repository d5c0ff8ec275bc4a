"""Talks to distilface, a semantic search database: text goes in, ranked hits come out.

    >>> from distilface_client import Client, Document
    >>> with Client("127.0.0.1:7700") as client:
    ...     made = client.create_collection("pets")
    ...     written = client.upsert("pets", [Document("1", "The cat sleeps on the sofa.", payload={"year": 2024})])
    ...     for hit in client.search("pets", "a resting pet", k=3):
    ...         print(hit.id, hit.passage.text)
    1 The cat sleeps on the sofa.

`AsyncClient` offers the same calls to asyncio. Every failure is a `DistilfaceError`.
"""

from ._ingest import DEFAULT_BATCH
from ._methods import DEFAULT_ADDRESS, DEFAULT_TIMEOUT, Retry
from .aio import AsyncClient
from .client import Client
from .errors import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    DistilfaceError,
    FailedPrecondition,
    FieldViolation,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from .filters import Field, Filter, all_of, any_of, field
from .payload import Payload, PayloadValue
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
    Fetched,
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

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_BATCH",
    "DEFAULT_TIMEOUT",
    "AlreadyExists",
    "AsyncClient",
    "Backup",
    "BackupCollection",
    "Chunking",
    "Client",
    "CollectionInfo",
    "CollectionStats",
    "Counted",
    "DataLoss",
    "DeadlineExceeded",
    "DistilfaceError",
    "Document",
    "DocumentLike",
    "Durability",
    "Embedding",
    "Embeddings",
    "Explain",
    "FailedPrecondition",
    "Fetched",
    "Field",
    "FieldStats",
    "FieldViolation",
    "Filter",
    "FilterHint",
    "Forbidden",
    "HealthStatus",
    "Hit",
    "Id",
    "IndexConfig",
    "IndexKind",
    "Internal",
    "InvalidArgument",
    "Metric",
    "Model",
    "NotFound",
    "Overloaded",
    "Passage",
    "Payload",
    "PayloadSet",
    "PayloadValue",
    "Query",
    "Restored",
    "Retry",
    "SearchResult",
    "StoredDocument",
    "TextKind",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "WriteMode",
    "WriteResult",
    "WriteStatus",
    "__version__",
    "all_of",
    "any_of",
    "field",
]
