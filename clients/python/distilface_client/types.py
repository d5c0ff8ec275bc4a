"""What goes in and comes out: plain, frozen data."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from . import _arrays
from .filters import Filter
from .payload import Payload, PayloadValue

Id: TypeAlias = "str | int | uuid.UUID"
"""A document's id; an integer or UUID is stored as its text, and comes back as that."""


class FilterHint(UserWarning):
    """The server's remark on a filter that may find less than was meant, such as one on a field that nobody has."""


class Counted(int):
    """A number of documents, with the server's remarks on the filter."""

    hints: tuple[str, ...]

    def __new__(cls, number: int, hints: tuple[str, ...] = ()) -> Counted:
        """A number with remarks."""
        counted = super().__new__(cls, number)
        counted.hints = hints
        return counted


class Metric(str, enum.Enum):
    """How near two vectors are. Scores are always "larger is better"."""

    COSINE = "cosine"
    """Cosine similarity, -1 to 1."""
    DOT = "dot"
    """Dot product, unbounded."""
    EUCLIDEAN = "euclidean"
    """1 / (1 + distance), 0 to 1."""


class IndexKind(str, enum.Enum):
    """What a collection is searched with."""

    DEFAULT = "default"
    """The server's choice."""
    FLAT = "flat"
    """Exact scan."""
    HNSW_RS = "hnsw_rs"
    """The graph of the hnsw_rs crate."""


class TextKind(str, enum.Enum):
    """Which of the model's prompts goes in front of a text."""

    RAW = "raw"
    """None."""
    QUERY = "query"
    DOCUMENT = "document"


class WriteStatus(str, enum.Enum):
    """What became of a document."""

    INSERTED = "inserted"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    """Its content is stored already: nothing was encoded or written."""
    FAILED = "failed"
    """See `WriteResult.error`; only from `ingest`."""


class HealthStatus(str, enum.Enum):
    """What the server says about itself."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """How a collection is indexed; 0 means the server's default."""

    kind: IndexKind = IndexKind.DEFAULT
    m: int = 0
    """Links per node and layer."""
    ef_construction: int = 0
    """Candidates kept while building."""
    ef_search: int = 0
    """Candidates kept while searching."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How long texts are cut into passages; 0 means the server's default."""

    disabled: bool = False
    """One passage per document; text past the model's limit is reported as truncated."""
    max_tokens: int = 0
    """Per passage, special tokens not counted."""
    overlap_tokens: int = 0
    """Shared with the passage before, in whole sentences."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a collection is."""

    name: str
    dimension: int
    metric: Metric
    index: IndexConfig
    chunking: Chunking
    vectors_only: bool
    """No encoder: every document brings its vector, every query is a vector or an id."""
    model: str
    """Name of the encoder; empty for `vectors_only`."""
    model_fingerprint: str
    created_at: dt.datetime
    aliases: tuple[str, ...]
    damage: str = ""
    """Why it cannot be opened and what to do about it; empty if all is well."""


@dataclass(frozen=True, slots=True)
class FieldStats:
    """One payload field of a collection."""

    field: str
    types: tuple[str, ...]
    documents: int


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Counts of a collection."""

    documents: int
    passages: int
    """Vectors that can be found."""
    indexed: int
    """Of those, in the graph; the rest is scanned exactly."""
    tombstones: int
    """Deleted vectors whose space is not yet back."""
    disk_bytes: int
    vector_bytes: int
    """Resident vectors."""
    fields: tuple[FieldStats, ...]
    """By name, a page of them."""
    fields_total: int = 0
    """Fields with the prefix that was asked for."""
    next_fields_page_token: str = ""
    """For the next page; empty: these were the last."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document to write. `vector` stands instead of `text` in a `vectors_only` collection.

    Wherever one is expected, a dict with the same fields may stand: `{"id": 7, "text": "...", "payload": {...}}`.
    """

    id: Id
    text: str = ""
    title: str = ""
    """Encoded in front of the text."""
    payload: Payload = field(default_factory=dict)
    vector: Sequence[float] | Any | None = None
    """A list of numbers, a NumPy array, or what `embed` gave for a text."""


DocumentLike: TypeAlias = "Document | Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document's text. Offsets are bytes of its UTF-8, end exclusive."""

    ordinal: int
    start: int
    end: int
    text: str
    """Empty where it was not asked for, and in stored documents, whose text is at hand."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored."""

    id: str
    text: str
    title: str
    payload: dict[str, PayloadValue]
    vector: tuple[float, ...] | None
    """If it was asked for; a document of several passages gives its first passage's."""
    passages: tuple[Passage, ...]
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Fetched:
    """Documents that were asked for by id."""

    documents: tuple[StoredDocument, ...]
    """Those found, in the order asked."""
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one document."""

    id: str
    status: WriteStatus
    error: str
    """Why it failed; empty otherwise."""
    passages: int
    tokens: int
    truncated: bool
    """Some text lies past the model's limit and was not encoded."""
    title_truncated: bool = False
    """Only the beginning of the title was encoded, at most 64 tokens; the text is not shortened for a title."""
    unknown_tokens: int = 0
    """Words that the model reads as one unknown token each: of more than 100 characters, or not in its vocabulary.
    Nothing finds a document by such a word."""


@dataclass(frozen=True, slots=True)
class PayloadSet:
    """What `set_payload` did."""

    results: tuple[WriteResult, ...]
    """Of those found, in the order asked: updated, unchanged (the fields were so already), or failed."""
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One search of `search_batch`. Exactly one of `text`, `vector` and `like` is given; see `Client.search`."""

    collection: str
    text: str | None = None
    vector: Sequence[float] | Any | None = None
    like: Id | None = None
    k: int = 10
    filter: str | Filter | None = None
    ef: int | None = None
    exact: bool = False
    threshold: float | None = None
    by_passage: bool = False
    with_payload: bool = True
    with_text: bool = True
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search."""

    id: str
    score: float
    """Larger is better."""
    title: str
    passage: Passage
    """The passage that fits best."""
    payload: dict[str, PayloadValue]


@dataclass(frozen=True, slots=True)
class Explain:
    """How a search was done; times in microseconds."""

    tokenize_us: int
    queue_us: int
    """Waiting for the encoder."""
    encode_us: int
    filter_us: int
    search_us: int
    fetch_us: int
    """Documents and passages from the store."""
    total_us: int
    plan: str
    """`exact`, `graph`, `filtered_exact` or `filtered_graph`."""
    reason: str
    """Why that plan, in words."""
    matching_documents: int
    """That pass the filter."""
    scanned: int
    """Vectors compared exactly."""
    ef: int
    device: str
    """Of the encoder."""
    encode_cached: bool = False
    """The query's vector was known from before: nothing was encoded."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first: iterate over it, index it, take its length."""

    hits: tuple[Hit, ...]
    tokens: int
    """Of the query."""
    truncated: bool
    """The query is longer than the model reads."""
    explain: Explain | None
    """If it was asked for."""
    hints: tuple[str, ...] = ()
    """The server's remarks on the filter, such as a field that no document has; empty as a rule."""

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text as a vector."""

    values: tuple[float, ...]
    tokens: int
    """Of the whole text, special tokens included."""
    truncated: bool
    """Tokens past the model's limit were not encoded."""
    unknown_tokens: int = 0
    """Words of the whole text that are one unknown token each."""

    def numpy(self) -> Any:
        """The vector as a NumPy array of float32, shape `[dimension]`; NumPy must be installed."""
        return _arrays.array(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """For `numpy.asarray` and the like."""
        return _arrays.converted(self.numpy(), dtype, copy)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the texts, and the model that made them."""

    embeddings: tuple[Embedding, ...]
    model: str
    model_fingerprint: str

    def __iter__(self) -> Iterator[Embedding]:
        return iter(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, index: int) -> Embedding:
        return self.embeddings[index]

    def numpy(self) -> Any:
        """The vectors as a NumPy array of float32, shape `[texts, dimension]`; NumPy must be installed."""
        return _arrays.array([embedding.values for embedding in self.embeddings])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """For `numpy.asarray` and the like."""
        return _arrays.converted(self.numpy(), dtype, copy)


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder that the server knows."""

    name: str
    architecture: str
    dimension: int
    max_tokens: int
    pooling: str
    fingerprint: str
    licence: str
    loaded: bool
    device: str
    """Where it runs, if it is loaded."""
    device_reason: str
    """Why there."""
    default: bool
    """It serves where no model is named."""
