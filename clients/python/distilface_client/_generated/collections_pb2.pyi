from . import common_pb2 as _common_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IndexKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_KIND_UNSPECIFIED: _ClassVar[IndexKind]
    INDEX_KIND_FLAT: _ClassVar[IndexKind]
    INDEX_KIND_HNSW_RS: _ClassVar[IndexKind]
INDEX_KIND_UNSPECIFIED: IndexKind
INDEX_KIND_FLAT: IndexKind
INDEX_KIND_HNSW_RS: IndexKind

class IndexConfig(_message.Message):
    __slots__ = ("kind", "m", "ef_construction", "ef_search")
    KIND_FIELD_NUMBER: _ClassVar[int]
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    kind: IndexKind
    m: int
    ef_construction: int
    ef_search: int
    def __init__(self, kind: _Optional[_Union[IndexKind, str]] = ..., m: _Optional[int] = ..., ef_construction: _Optional[int] = ..., ef_search: _Optional[int] = ...) -> None: ...

class ChunkingConfig(_message.Message):
    __slots__ = ("disabled", "max_tokens", "overlap_tokens")
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    disabled: bool
    max_tokens: int
    overlap_tokens: int
    def __init__(self, disabled: bool = ..., max_tokens: _Optional[int] = ..., overlap_tokens: _Optional[int] = ...) -> None: ...

class CollectionConfig(_message.Message):
    __slots__ = ("name", "dimension", "metric", "index", "chunking", "vectors_only", "model")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHUNKING_FIELD_NUMBER: _ClassVar[int]
    VECTORS_ONLY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    metric: _common_pb2.Metric
    index: IndexConfig
    chunking: ChunkingConfig
    vectors_only: bool
    model: str
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., metric: _Optional[_Union[_common_pb2.Metric, str]] = ..., index: _Optional[_Union[IndexConfig, _Mapping]] = ..., chunking: _Optional[_Union[ChunkingConfig, _Mapping]] = ..., vectors_only: bool = ..., model: _Optional[str] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("config", "model", "model_fingerprint", "created_at", "aliases", "damage")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    config: CollectionConfig
    model: str
    model_fingerprint: str
    created_at: _timestamp_pb2.Timestamp
    aliases: _containers.RepeatedScalarFieldContainer[str]
    damage: str
    def __init__(self, config: _Optional[_Union[CollectionConfig, _Mapping]] = ..., model: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., aliases: _Optional[_Iterable[str]] = ..., damage: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("config", "if_not_exists")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_EXISTS_FIELD_NUMBER: _ClassVar[int]
    config: CollectionConfig
    if_not_exists: bool
    def __init__(self, config: _Optional[_Union[CollectionConfig, _Mapping]] = ..., if_not_exists: bool = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection", "created")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    created: bool
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ..., created: bool = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("alias", "collection")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    collection: str
    def __init__(self, alias: _Optional[str] = ..., collection: _Optional[str] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: str
    def __init__(self, previous: _Optional[str] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    def __init__(self, alias: _Optional[str] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectionStatsRequest(_message.Message):
    __slots__ = ("name", "fields_page_size", "fields_page_token", "fields_prefix")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELDS_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FIELDS_PREFIX_FIELD_NUMBER: _ClassVar[int]
    name: str
    fields_page_size: int
    fields_page_token: str
    fields_prefix: str
    def __init__(self, name: _Optional[str] = ..., fields_page_size: _Optional[int] = ..., fields_page_token: _Optional[str] = ..., fields_prefix: _Optional[str] = ...) -> None: ...

class CollectionStatsResponse(_message.Message):
    __slots__ = ("documents", "passages", "indexed", "tombstones", "disk_bytes", "vector_bytes", "fields", "fields_total", "next_fields_page_token", "segments", "dead_documents", "unsealed_bytes")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELDS_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DEAD_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    UNSEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    documents: int
    passages: int
    indexed: int
    tombstones: int
    disk_bytes: int
    vector_bytes: int
    fields: _containers.RepeatedCompositeFieldContainer[FieldStats]
    fields_total: int
    next_fields_page_token: str
    segments: int
    dead_documents: int
    unsealed_bytes: int
    def __init__(self, documents: _Optional[int] = ..., passages: _Optional[int] = ..., indexed: _Optional[int] = ..., tombstones: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., vector_bytes: _Optional[int] = ..., fields: _Optional[_Iterable[_Union[FieldStats, _Mapping]]] = ..., fields_total: _Optional[int] = ..., next_fields_page_token: _Optional[str] = ..., segments: _Optional[int] = ..., dead_documents: _Optional[int] = ..., unsealed_bytes: _Optional[int] = ...) -> None: ...

class FieldStats(_message.Message):
    __slots__ = ("field", "types", "documents")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    field: str
    types: _containers.RepeatedScalarFieldContainer[str]
    documents: int
    def __init__(self, field: _Optional[str] = ..., types: _Optional[_Iterable[str]] = ..., documents: _Optional[int] = ...) -> None: ...
