"""Lists the server's methods with their types, and says how a call is addressed and which calls may be repeated.

Shared by both clients: nothing here waits or sends.
"""

from __future__ import annotations

import ipaddress
import math
import random
import time
import uuid
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from ._generated import (
    backups_pb2 as b,
)
from ._generated import (
    backups_pb2_grpc,
    collections_pb2_grpc,
    documents_pb2_grpc,
    encoder_pb2_grpc,
    search_pb2_grpc,
    wire_pb2,
)
from ._generated import (
    collections_pb2 as c,
)
from ._generated import (
    documents_pb2 as d,
)
from ._generated import (
    encoder_pb2 as e,
)
from ._generated import (
    search_pb2 as s,
)
from .errors import REQUEST_ID, DeadlineExceeded

DEFAULT_ADDRESS = "127.0.0.1:7700"
"""Where `distilface serve` listens unless it is told otherwise."""
DEFAULT_TIMEOUT = 30.0
"""Seconds that a call may take."""
DEFAULT_MESSAGE_BYTES_MAX = 64 << 20
"""Bytes of the largest message that is sent or taken."""

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Method(Generic[Q, R]):
    """Names a method of the server. One that is `repeatable` only reads, so a failed call may be made again."""

    service: str
    name: str
    repeatable: bool = False


CREATE: Method[c.CreateCollectionRequest, c.CreateCollectionResponse] = Method("Collections", "Create")
COLLECTION: Method[c.GetCollectionRequest, c.GetCollectionResponse] = Method("Collections", "Get", True)
COLLECTIONS: Method[c.ListCollectionsRequest, c.ListCollectionsResponse] = Method("Collections", "List", True)
DROP: Method[c.DeleteCollectionRequest, c.DeleteCollectionResponse] = Method("Collections", "Delete")
SET_ALIAS: Method[c.SetAliasRequest, c.SetAliasResponse] = Method("Collections", "SetAlias")
DELETE_ALIAS: Method[c.DeleteAliasRequest, c.DeleteAliasResponse] = Method("Collections", "DeleteAlias")
STATS: Method[c.CollectionStatsRequest, c.CollectionStatsResponse] = Method("Collections", "Stats", True)
UPSERT: Method[d.UpsertRequest, d.UpsertResponse] = Method("Documents", "Upsert")
SET_PAYLOAD: Method[d.SetPayloadRequest, d.SetPayloadResponse] = Method("Documents", "SetPayload")
UNSET_PAYLOAD: Method[d.UnsetPayloadRequest, d.SetPayloadResponse] = Method("Documents", "UnsetPayload")
GET: Method[d.GetDocumentsRequest, d.GetDocumentsResponse] = Method("Documents", "Get", True)
DELETE: Method[d.DeleteDocumentsRequest, d.DeleteDocumentsResponse] = Method("Documents", "Delete")
SCROLL: Method[d.ScrollRequest, d.ScrollResponse] = Method("Documents", "Scroll", True)
COUNT: Method[d.CountRequest, d.CountResponse] = Method("Documents", "Count", True)
SEARCH: Method[s.SearchRequest, s.SearchResponse] = Method("Search", "Search", True)
SEARCH_BATCH: Method[s.SearchBatchRequest, s.SearchBatchResponse] = Method("Search", "SearchBatch", True)
EMBED: Method[e.EmbedRequest, e.EmbedResponse] = Method("Encoder", "Embed", True)
SIMILARITY: Method[e.SimilarityRequest, e.SimilarityResponse] = Method("Encoder", "Similarity", True)
USE_MODEL: Method[e.UseModelRequest, e.UseModelResponse] = Method("Encoder", "UseModel")
MODELS: Method[e.ModelsRequest, e.ModelsResponse] = Method("Encoder", "Models", True)
CREATE_BACKUP: Method[b.CreateBackupRequest, b.CreateBackupResponse] = Method("Backups", "Create")
BACKUPS: Method[b.ListBackupsRequest, b.ListBackupsResponse] = Method("Backups", "List", True)
RESTORE_BACKUP: Method[b.RestoreBackupRequest, b.RestoreBackupResponse] = Method("Backups", "Restore")
HEALTH: Method[wire_pb2.HealthCheckRequest, wire_pb2.HealthCheckResponse] = Method("Health", "Check", True)


class Health:
    """Is the stub of grpc.health.v1, whose messages the client carries under another name."""

    def __init__(self, channel: Any) -> None:
        self.Check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=wire_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=wire_pb2.HealthCheckResponse.FromString,
        )


def stubs(channel: Any) -> dict[str, Any]:
    """Makes the generated stubs over a channel, by service."""
    return {
        "Collections": collections_pb2_grpc.CollectionsStub(channel),
        "Documents": documents_pb2_grpc.DocumentsStub(channel),
        "Search": search_pb2_grpc.SearchStub(channel),
        "Encoder": encoder_pb2_grpc.EncoderStub(channel),
        "Backups": backups_pb2_grpc.BackupsStub(channel),
        "Health": Health(channel),
    }


@dataclass(frozen=True)
class Retry:
    """Says how often and after which pauses a call is repeated when the server is unavailable.

    Reading calls are repeated, and writes that have a `request_id`, which the server does once. Nothing is repeated
    past the call's timeout.

    >>> never = Retry(attempts=1)
    """

    attempts: int = 4
    """Number of attempts in all, 1 or more; 1 never repeats. Default 4."""
    first_pause: float = 0.1
    """Seconds before the first repetition, 0 or more; each further pause is twice as long. Default 0.1."""
    longest_pause: float = 2.0
    """Seconds that a pause takes at most, 0 or more. Default 2."""

    def pause(self, attempt: int) -> float:
        """Answers the seconds to wait after this `attempt`, counted from 1; half of them are left to chance.

        >>> 0.05 <= Retry().pause(1) <= 0.1
        True
        """
        longest: float = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
        return longest * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Address:
    """Says where the server is."""

    target: str
    secure: bool
    loopback: bool

    @classmethod
    def parse(cls, address: str) -> Address:
        """Reads `host:port`, with or without `http://` or `https://` (which means TLS)."""
        scheme, separator, rest = address.partition("://")
        if not separator:
            scheme, rest = "http", address
        elif scheme not in ("http", "https"):
            # unix:///path and the like are gRPC's own.
            return cls(address, secure=False, loopback=True)
        rest = rest.rstrip("/")
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"bad address {address!r}: expected host:port, such as {DEFAULT_ADDRESS}")
        return cls(rest, secure=scheme == "https", loopback=_is_loopback(host.strip("[]")))


def channel_options(address: Address, message_bytes_max: int) -> list[tuple[str, Any]]:
    """Lists the options of a channel."""
    from . import __version__

    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.primary_user_agent", f"distilface-client/{__version__}"),
        # So that a repeated call meets a fresh attempt to connect instead of the last failure.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if address.loopback:
        # gRPC would send even these through a proxy that the environment names.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def channel(
    library: Any, address: Address, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, Any]]
) -> Any:
    """Opens a channel of the `library`, gRPC or grpc.aio; it is secured where there are credentials."""
    if credentials:
        return library.secure_channel(address.target, credentials, options)
    return library.insecure_channel(address.target, options)


def credentials_for(address: Address, given: grpc.ChannelCredentials | None) -> grpc.ChannelCredentials | None:
    """Answers what a channel is secured with, or None if it is not."""
    if given is None and address.secure:
        return grpc.ssl_channel_credentials()
    return given


def time_left(end: float, request_id: str) -> float | None:
    """Counts the seconds until a moment of the monotonic clock, as gRPC wants them: None means for ever.

    Raises `DeadlineExceeded` if there are none: gRPC may send a request whose time has already run out.
    """
    if end == math.inf:
        return None
    left = end - time.monotonic()
    if left <= 0:
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        raise DeadlineExceeded("the time ran out before the request was sent", code=code, request_id=request_id)
    return left


def new_request_id() -> str:
    """Makes an id under which the server's log will know a call."""
    return uuid.uuid4().hex


def metadata_for(request_id: str) -> tuple[tuple[str, str], ...]:
    """Makes what travels beside a request."""
    return ((REQUEST_ID, request_id),)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
