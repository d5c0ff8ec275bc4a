from . import collections_pb2 as _collections_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Backup(_message.Message):
    __slots__ = ("name", "made_at", "version", "collections", "bytes", "folder", "damage")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MADE_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    made_at: _timestamp_pb2.Timestamp
    version: str
    collections: _containers.RepeatedCompositeFieldContainer[BackupCollection]
    bytes: int
    folder: str
    damage: str
    def __init__(self, name: _Optional[str] = ..., made_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[str] = ..., collections: _Optional[_Iterable[_Union[BackupCollection, _Mapping]]] = ..., bytes: _Optional[int] = ..., folder: _Optional[str] = ..., damage: _Optional[str] = ...) -> None: ...

class BackupCollection(_message.Message):
    __slots__ = ("name", "documents", "passages", "bytes", "aliases")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    name: str
    documents: int
    passages: int
    bytes: int
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., documents: _Optional[int] = ..., passages: _Optional[int] = ..., bytes: _Optional[int] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateBackupRequest(_message.Message):
    __slots__ = ("name", "collections", "copy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    name: str
    collections: _containers.RepeatedScalarFieldContainer[str]
    copy: bool
    def __init__(self, name: _Optional[str] = ..., collections: _Optional[_Iterable[str]] = ..., copy: bool = ...) -> None: ...

class CreateBackupResponse(_message.Message):
    __slots__ = ("backup", "linked_bytes", "copied_bytes")
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    LINKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    backup: Backup
    linked_bytes: int
    copied_bytes: int
    def __init__(self, backup: _Optional[_Union[Backup, _Mapping]] = ..., linked_bytes: _Optional[int] = ..., copied_bytes: _Optional[int] = ...) -> None: ...

class ListBackupsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBackupsResponse(_message.Message):
    __slots__ = ("backups",)
    BACKUPS_FIELD_NUMBER: _ClassVar[int]
    backups: _containers.RepeatedCompositeFieldContainer[Backup]
    def __init__(self, backups: _Optional[_Iterable[_Union[Backup, _Mapping]]] = ...) -> None: ...

class RestoreBackupRequest(_message.Message):
    __slots__ = ("name", "collection", "rename", "aliases")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    name: str
    collection: str
    rename: str
    aliases: bool
    def __init__(self, name: _Optional[str] = ..., collection: _Optional[str] = ..., rename: _Optional[str] = ..., aliases: bool = ...) -> None: ...

class RestoreBackupResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[RestoredCollection]
    def __init__(self, collections: _Optional[_Iterable[_Union[RestoredCollection, _Mapping]]] = ...) -> None: ...

class RestoredCollection(_message.Message):
    __slots__ = ("collection", "source", "documents", "passages", "aliases_left", "missing_model")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_LEFT_FIELD_NUMBER: _ClassVar[int]
    MISSING_MODEL_FIELD_NUMBER: _ClassVar[int]
    collection: _collections_pb2.Collection
    source: str
    documents: int
    passages: int
    aliases_left: _containers.RepeatedScalarFieldContainer[str]
    missing_model: str
    def __init__(self, collection: _Optional[_Union[_collections_pb2.Collection, _Mapping]] = ..., source: _Optional[str] = ..., documents: _Optional[int] = ..., passages: _Optional[int] = ..., aliases_left: _Optional[_Iterable[str]] = ..., missing_model: _Optional[str] = ...) -> None: ...
