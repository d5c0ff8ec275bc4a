"""Holds what goes in and comes out, as plain, frozen data.

What a text says about `limits` is a setting of the server, and the number is its default.
"""

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
"""A document's id, 1 to 512 bytes as UTF-8; an integer or UUID is stored as its text, and comes back as that."""


class FilterHint(UserWarning):
    """Tells the server's remark on a filter that may find less than was meant, such as one on a field nobody has."""


class Counted(int):
    """Is a number of documents, 0 or more, that carries the server's remarks on the filter.

    >>> Counted(3) + 1
    4
    """

    hints: tuple[str, ...]
    """The remarks, at most 8; empty as a rule. Each is a `FilterHint` warning too."""

    def __new__(cls, number: int, hints: tuple[str, ...] = ()) -> Counted:
        """Makes a `number` with its `hints`, by default none."""
        counted = super().__new__(cls, number)
        counted.hints = hints
        return counted


class Metric(str, enum.Enum):
    """Says how near two vectors are. Scores are always "larger is better"."""

    COSINE = "cosine"
    """The score is the cosine similarity, -1 to 1; vectors are normalised when they arrive."""
    DOT = "dot"
    """The score is the dot product, which has no bounds."""
    EUCLIDEAN = "euclidean"
    """The score is 1 / (1 + distance), above 0 and at most 1."""


class IndexKind(str, enum.Enum):
    """Says what a collection is searched with."""

    DEFAULT = "default"
    """The server chooses; it takes `HNSW_RS`."""
    FLAT = "flat"
    """Every search compares with every vector, so its answer is exact."""
    HNSW_RS = "hnsw_rs"
    """A search walks the graph of the hnsw_rs crate, which finds nearly all of the nearest in less time."""


class TextKind(str, enum.Enum):
    """Says which of the model's prompts goes in front of a text."""

    RAW = "raw"
    """No prompt goes in front."""
    QUERY = "query"
    """The prompt for questions goes in front, if the model has one."""
    DOCUMENT = "document"
    """The prompt for documents goes in front, if the model has one."""


class WriteMode(str, enum.Enum):
    """Says whether a write is to make new documents, or to replace stored ones."""

    ANY = "any"
    """A document is inserted, or replaces the one of its id."""
    INSERT_ONLY = "insert_only"
    """A document of this id must not be there: `AlreadyExists`."""
    REPLACE_ONLY = "replace_only"
    """A document of this id must be there: `NotFound`."""


class Durability(str, enum.Enum):
    """Says what a write must not be lost by, once it is answered."""

    POWER = "power"
    """The loss of power: it is answered when it is synced."""
    PROCESS = "process"
    """The end of the server's process; what the last second before a loss of power brought may be lost."""


class WriteStatus(str, enum.Enum):
    """Says what became of a document."""

    INSERTED = "inserted"
    """Its id was new."""
    UPDATED = "updated"
    """It replaced, or changed, the document that was stored under its id."""
    UNCHANGED = "unchanged"
    """Its content is stored already: nothing was encoded or written."""
    FAILED = "failed"
    """It was not written, and `WriteResult.error` says why; only from `ingest` and `set_payload`."""


class HealthStatus(str, enum.Enum):
    """Says what the server answers about its state."""

    UNKNOWN = "unknown"
    """The server does not say."""
    SERVING = "serving"
    """The server takes calls."""
    NOT_SERVING = "not_serving"
    """The server is stopping, or a part of it does not answer."""
    SERVICE_UNKNOWN = "service_unknown"
    """There is no such service; `health` raises `NotFound` instead."""


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Describes how a collection is indexed.

    In an answer every number is the one in effect.
    """

    kind: IndexKind = IndexKind.DEFAULT
    """What searches use. Default: the server's choice."""
    m: int = 0
    """Number of links that a vector has in each layer of the graph, 2 to 128. Default 0, which means 16."""
    ef_construction: int = 0
    """Number of candidates kept while the graph is built, 8 to 4096. Default 0, which means 200."""
    ef_search: int = 0
    """Number of candidates kept while searching, 1 to 4096, raised to `k`. Default 0, which means 96."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """Describes how long texts are cut into passages, each of which has a vector.

    In an answer every number is the one in effect.
    """

    disabled: bool = False
    """A document is one passage; text past the model's limit is reported as truncated. Default `False`."""
    max_tokens: int = 0
    """Number of tokens of a passage at most, special tokens not counted, 1 to what the model reads.
    Default 0, which means 254, or what the model reads where that is less."""
    overlap_tokens: int = 0
    """Number of tokens shared with the passage before, in whole sentences, 1 to `max_tokens - 1`.
    Default 0, which means an eighth of `max_tokens`."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """Describes a collection."""

    name: str
    """Its own name, also where it was asked for by an alias."""
    dimension: int
    """Length of its vectors, 1 to 8192."""
    metric: Metric
    """How near two vectors are."""
    index: IndexConfig
    """How its vectors are indexed."""
    chunking: Chunking
    """How its texts are cut into passages."""
    vectors_only: bool
    """There is no encoder: every document brings its vector, and every query is a vector or an id."""
    model: str
    """Name of the encoder; empty for `vectors_only`."""
    model_fingerprint: str
    """Hash in hexadecimal digits of the model's weights, tokenizer and pooling; empty for `vectors_only`."""
    created_at: dt.datetime
    """When it was created, in UTC."""
    aliases: tuple[str, ...]
    """Other names that it answers to."""
    damage: str = ""
    """Why it cannot be opened and what to do about it; empty if all is well. Every call on a damaged collection
    but `delete_collection` raises `DataLoss`."""


@dataclass(frozen=True, slots=True)
class FieldStats:
    """Describes one payload field of a collection."""

    field: str
    """Its name."""
    types: tuple[str, ...]
    """The types of its values, such as `integer` or `list of string`."""
    documents: int
    """Number of documents that have it, 1 or more."""


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Counts what a collection holds; every number is 0 or more."""

    documents: int
    """Number of documents."""
    passages: int
    """Number of vectors that can be found; each is of one passage."""
    indexed: int
    """Number of those that are in the index; the rest is compared with one by one."""
    tombstones: int
    """Number of deleted vectors whose space is not yet free."""
    disk_bytes: int
    """Bytes of the collection's files, and of its part of the log."""
    vector_bytes: int
    """Bytes of the vectors in memory."""
    fields: tuple[FieldStats, ...]
    """A page of the payload fields, ordered by name."""
    fields_total: int = 0
    """Number of fields with the prefix that was asked for, on all pages."""
    next_fields_page_token: str = ""
    """What to give as `fields_page_token` for the next page; empty on the last one."""
    segments: int = 0
    """Number of segments that its documents lie in."""
    dead_documents: int = 0
    """Number of deleted or replaced documents whose space on the disk is not taken back yet."""
    unsealed_bytes: int = 0
    """Bytes that lie in the log and in memory, and in no segment yet."""


@dataclass(frozen=True, slots=True)
class Document:
    """Holds a document to write.

    Wherever one is expected, a dict with the same fields may stand: `{"id": 7, "text": "...", "payload": {...}}`.

    >>> Document("1", "The cat sleeps on the sofa.", payload={"year": 2024, "tags": ["pet"]}).payload["year"]
    2024
    """

    id: Id
    """Its id, 1 to 512 bytes as UTF-8."""
    text: str = ""
    """What is encoded and found; in a `vectors_only` collection it is only stored. Elsewhere text or title is required.
    Together they have at most `limits.text_bytes_max` (4 MiB) as UTF-8. Default: no text."""
    title: str = ""
    """Encoded in front of every passage, of a long title its beginning (see `WriteResult.title_truncated`).
    Default: no title."""
    payload: Payload = field(default_factory=dict)
    """Fields to filter by and to get back, at most 1000, of at most `limits.payload_bytes_max` (64 KiB) together.
    A name has 1 to 256 bytes; the module `payload` says which values a field may have. Default: no fields."""
    vector: Sequence[float] | Any | None = None
    """Finite numbers, as many as the dimension of the collection, as a list, a NumPy array, or what `embed` gave.
    Required in a `vectors_only` collection; anywhere else it must be left out. Default: none."""
    expected_version: int | None = None
    """The version that the stored document must have for this one to be written over it, 1 or more: the `version` that
    was read. Default: whatever is stored is replaced."""


DocumentLike: TypeAlias = "Document | Mapping[str, Any]"
"""A document, or a dict with the fields of one."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Holds a part of a document's text.

    The offsets count bytes of the text's UTF-8: the passage is `text.encode()[start:end].decode()`.
    """

    ordinal: int
    """Its place among the document's passages, from 0."""
    start: int
    """Offset of its first byte, 0 or more."""
    end: int
    """Offset of the byte after its last."""
    text: str
    """Its text; empty where it was not asked for, and in stored documents, whose text is at hand."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Holds a document as it is stored."""

    id: str
    """Its id."""
    text: str
    """Its text; empty where it was not asked for."""
    title: str
    """Its title; empty if it has none."""
    payload: dict[str, PayloadValue]
    """Its fields, in alphabetical order."""
    vector: tuple[float, ...] | None
    """The vector of its first passage, as long as the collection's dimension; `None` where it was not asked for."""
    passages: tuple[Passage, ...]
    """Its passages, in order."""
    updated_at: dt.datetime
    """When it was written last, in UTC."""
    version: int = 0
    """Which state of the document this is, 1 or more. Each write that changes a document gives it a larger version than
    any document of its collection ever had; none is given out twice. 0 from a server that tells none."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Holds documents that were asked for by id."""

    documents: tuple[StoredDocument, ...]
    """Those found, in the order asked."""
    missing: tuple[str, ...]
    """The ids that no document has, each once."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Says what became of one document."""

    id: str
    """The document's id."""
    status: WriteStatus
    """What was done."""
    error: str
    """Why it failed; empty otherwise."""
    passages: int
    """Number of passages of the document; 0 where `upsert` or `ingest` wrote nothing."""
    tokens: int
    """Number of tokens that were encoded, special ones included; 0 where nothing was."""
    truncated: bool
    """Some text lies past the model's limit and was not encoded."""
    title_truncated: bool = False
    """Only the beginning of the title was encoded: at most a quarter of each passage, and at most 64 tokens. The text
    is not shortened for a title."""
    unknown_tokens: int = 0
    """Number of words that the model reads as one unknown token each, since they have more than 100 characters or its
    vocabulary cannot spell them. Nothing finds a document by such a word."""
    version: int = 0
    """Version of the document as it is stored now, also where it is unchanged; 0 where the write failed."""
    error_kind: str = ""
    """The kind of the error as the `reason` of a `DistilfaceError` names it, such as `EXISTS` or `PRECONDITION`; empty
    where nothing failed, and where the document was not sent."""


@dataclass(frozen=True, slots=True)
class PayloadSet:
    """Says what `set_payload` did."""

    results: tuple[WriteResult, ...]
    """Of ids: what became of the documents that were found, in the order asked: updated, unchanged (the fields were so
    already), or failed. Of a filter: the first 10 that failed."""
    missing: tuple[str, ...]
    """The ids that no document has."""
    matched: int = 0
    """Number of documents that were there and, with a filter, matched; the sum of the next three."""
    changed: int = 0
    """Number of documents that have other fields now."""
    unchanged: int = 0
    """Number of documents whose fields were so already."""
    failed: int = 0
    """Number of documents that could not be changed."""
    hints: tuple[str, ...] = ()
    """The server's remarks on the filter, at most 8; empty as a rule. Each is a `FilterHint` warning too."""


@dataclass(frozen=True, slots=True)
class Query:
    """Describes one search of `search_batch`. Exactly one of `text`, `vector` and `like` is given.

    >>> Query("notes", "a resting animal", k=3, filter="year >= 2000").k
    3
    """

    collection: str
    """What is searched: a collection's name, or an alias."""
    text: str | None = None
    """The question, not empty, at most `limits.query_bytes_max` (32 KiB) as UTF-8. Default: none."""
    vector: Sequence[float] | Any | None = None
    """The question as finite numbers, as many as the collection's dimension; a list, a NumPy array, or what `embed`
    gave. Default: none."""
    like: Id | None = None
    """Id of a stored document; documents like it are found, and it is left out. Default: none."""
    k: int = 10
    """Number of hits, 1 to `limits.k_max` (1000). Default 10."""
    filter: str | Filter | None = None
    """Only documents that match this condition, as text or made with `field`. Default: all."""
    ef: int | None = None
    """Number of candidates that the graph keeps, 1 to 4096, raised to `k` where it is less. Default: the
    collection's."""
    exact: bool = False
    """Compares with every vector instead of walking the graph. Default `False`."""
    threshold: float | None = None
    """Leaves out hits with a lower score; a finite number in the units of the collection's metric. Default: none."""
    by_passage: bool = False
    """Gives one hit per passage instead of one per document. Default `False`."""
    with_payload: bool = True
    """The hits bring their payloads. Default `True`."""
    with_text: bool = True
    """The hits bring their passages' texts. Default `True`."""
    explain: bool = False
    """The answer says how it was found and how long that took. Default `False`."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Holds one answer of a search."""

    id: str
    """The document's id."""
    score: float
    """How well it fits, in the units of the collection's `Metric`; larger is better."""
    title: str
    """The document's title; empty if it has none."""
    passage: Passage
    """The passage that fits best."""
    payload: dict[str, PayloadValue]
    """The document's fields, in alphabetical order; empty where they were not asked for."""
    version: int = 0
    """Which state of the document was found, 1 or more; see `StoredDocument.version`."""


@dataclass(frozen=True, slots=True)
class Explain:
    """Says how a search was done. Times are in microseconds; every number is 0 or more."""

    tokenize_us: int
    """Time to turn the query's text into tokens."""
    queue_us: int
    """Time the query waited for the encoder."""
    encode_us: int
    """Time to encode the query."""
    filter_us: int
    """Time to find the documents that match the filter."""
    search_us: int
    """Time to find the nearest vectors."""
    fetch_us: int
    """Time to read the hits' documents from the store."""
    total_us: int
    """Time of the whole search in the server."""
    plan: str
    """One of `exact`, `graph`, `filtered_exact` and `filtered_graph`."""
    reason: str
    """Why that plan was taken, in words."""
    matching_documents: int
    """Number of documents that pass the filter."""
    scanned: int
    """Number of vectors that were compared one by one."""
    ef: int
    """Number of candidates that the graph kept; 0 where no graph was used."""
    device: str
    """Where the encoder runs and in which precision, such as `openvino (bf16)`; empty where the query was no text."""
    encode_cached: bool = False
    """The query's vector was known from before, so nothing was encoded."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Holds the hits of a search, best first: iterate over it, index it, or take its length."""

    hits: tuple[Hit, ...]
    """The hits, best first, at most `k`."""
    tokens: int
    """Number of tokens of the query's text; 0 where it was no text."""
    truncated: bool
    """The query is longer than the model reads, and its end was left out."""
    explain: Explain | None
    """How it was done; `None` where that was not asked for."""
    hints: tuple[str, ...] = ()
    """The server's remarks on the filter, such as a field that no document has, at most 8; empty as a rule."""

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Holds a text as a vector."""

    values: tuple[float, ...]
    """The vector, as long as the model's dimension."""
    tokens: int
    """Number of tokens of the whole text, special tokens included."""
    truncated: bool
    """Tokens past the model's limit were not encoded."""
    unknown_tokens: int = 0
    """Number of words of the whole text that the model reads as one unknown token each."""

    def numpy(self) -> Any:
        """Gives the vector as a NumPy array of float32, shape `[dimension]`; NumPy must be installed."""
        return _arrays.array(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Gives the vector to `numpy.asarray` and the like."""
        return _arrays.converted(self.numpy(), dtype, copy)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Holds vectors in the order of the texts: iterate over it, index it, or take its length."""

    embeddings: tuple[Embedding, ...]
    """One vector for each text, in their order."""
    model: str
    """Name of the model that made them."""
    model_fingerprint: str
    """Hash in hexadecimal digits of the model's weights, tokenizer and pooling: vectors of one fingerprint can be
    compared."""

    def __iter__(self) -> Iterator[Embedding]:
        return iter(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, index: int) -> Embedding:
        return self.embeddings[index]

    def numpy(self) -> Any:
        """Gives the vectors as a NumPy array of float32, shape `[texts, dimension]`; NumPy must be installed."""
        return _arrays.array([embedding.values for embedding in self.embeddings])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Gives the vectors to `numpy.asarray` and the like."""
        return _arrays.converted(self.numpy(), dtype, copy)


@dataclass(frozen=True, slots=True)
class Model:
    """Describes an encoder that the server has."""

    name: str
    """What `embed`, `create_collection` and others call it."""
    architecture: str
    """Kind of network, such as `bert`."""
    dimension: int
    """Length of its vectors, 1 to 8192."""
    max_tokens: int
    """Number of tokens that it reads at most, special tokens included."""
    pooling: str
    """How its tokens' vectors become one, such as `mean` or `cls`."""
    fingerprint: str
    """Hash in hexadecimal digits of its weights, tokenizer and pooling."""
    licence: str
    """Name of its licence, or `unknown`."""
    loaded: bool
    """It is in memory; others are loaded when they are needed."""
    device: str
    """Where it runs and in which precision, such as `openvino (bf16)`; empty if it is not loaded."""
    device_reason: str
    """Why it runs there, in words; empty if it is not loaded."""
    default: bool
    """It serves where no model is named."""


@dataclass(frozen=True, slots=True)
class BackupCollection:
    """Describes a collection in a backup."""

    name: str
    """Its name."""
    documents: int
    """Number of documents that it holds."""
    passages: int
    """Number of their passages."""
    bytes: int
    """Bytes of its files."""
    aliases: tuple[str, ...]
    """Aliases that it had, by name."""


@dataclass(frozen=True, slots=True)
class Backup:
    """Describes a backup in the server's folder for backups."""

    name: str
    """Its name."""
    made_at: dt.datetime | None
    """When it was begun, in UTC: what was acknowledged before is in it. `None` if it is damaged."""
    version: str
    """Version of the program that made it."""
    collections: tuple[BackupCollection, ...]
    """What is in it, by name."""
    bytes: int
    """Bytes of all its files."""
    folder: str
    """Its folder on the server's machine."""
    damage: str = ""
    """Why its list of files cannot be read; empty as a rule. `distilface verify` reads the files."""
    linked_bytes: int = 0
    """Bytes of files that are second names of the data folder's own; told when it is made, else 0."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Describes a collection that was made of one in a backup."""

    collection: CollectionInfo
    """What it is now; its aliases are those that were restored."""
    source: str
    """Its name in the backup."""
    documents: int
    """Number of documents that it holds."""
    passages: int
    """Number of their passages."""
    aliases_left: tuple[str, ...]
    """Aliases that it had, and that were not restored."""
    missing_model: str = ""
    """Why its texts cannot be encoded by the server, and what to do about it; empty as a rule."""
