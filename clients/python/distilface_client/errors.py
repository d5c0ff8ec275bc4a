"""Says what went wrong, in one exception class for each thing that a caller can do about it.

Every error carries the server's message and the id under which the server's log knows the request.

    >>> try:
    ...     raise Overloaded("too many requests", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.2)
    ... except DistilfaceError as error:
    ...     print(type(error).__name__, error.code.name)
    Overloaded RESOURCE_EXHAUSTED
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from ._generated import wire_pb2

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
# What gRPC says where no connection came about.
_NOT_REACHED = re.compile(r"connect|dns|resol", re.IGNORECASE)
_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True)
class FieldViolation:
    """Names a field of the request that is to blame."""

    field: str
    """Its name in the API, such as `k` or `filter`."""
    description: str
    """What is wrong with it, in words."""


class DistilfaceError(Exception):
    """Tells of any failure of a call. It is raised itself for status codes that no subclass stands for.

    - `message`: what was wrong, in words.
    - `code`: the gRPC status.
    - `request_id`: what the server's log calls the request. Default: empty, for a failure of no request.
    - `reason`: the server's name of the kind, such as `INVALID`. Default: empty, for a failure that arose before
      the server answered.
    - `violations`: the fields to blame, where they are known. Default: none.

    As text it is the message, with the request's id behind it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        request_id: str = "",
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.reason = reason
        self.violations = violations

    def __str__(self) -> str:
        suffix = f" (request {self.request_id})" if self.request_id and self.request_id not in self.message else ""
        return f"{self.message}{suffix}"


class InvalidArgument(DistilfaceError):
    """The request is wrong: change it. `violations` may name the field."""


class TooLarge(InvalidArgument):
    """The request or its answer is larger than one message may be: ask for less, or in smaller batches."""


class NotFound(DistilfaceError):
    """What was named does not exist: choose another name, or create it first."""


class AlreadyExists(DistilfaceError):
    """What was to be created exists: choose another name, or another id."""


class FailedPrecondition(DistilfaceError):
    """The request is right but the state is not, such as a collection made with another model: fix the state.

    Where a version was expected of a document, somebody changed the document: read it again, and decide anew.
    """


class Unauthenticated(DistilfaceError):
    """The caller is not known: give a valid key."""


class Forbidden(DistilfaceError):
    """The caller is known and may not do this: ask whoever grants it."""


class Overloaded(DistilfaceError):
    """A queue or a limit is full: wait for `retry_after` seconds, then retry.

    `retry_after` is 0 or more, and `None`, the default, where the server did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after = retry_after


class Unavailable(DistilfaceError):
    """The server cannot be reached, or is starting or stopping: retry later."""


class DeadlineExceeded(DistilfaceError):
    """The time ran out: retry with more of it. A write may have been done all the same."""


class DataLoss(DistilfaceError):
    """Stored bytes are not what was written: call the operator."""


class Internal(DistilfaceError):
    """A fault of the server: report it with the request id."""


_CLASSES: dict[grpc.StatusCode, type[DistilfaceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: TooLarge,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.INTERNAL: Internal,
}


def from_rpc(error: grpc.RpcError, request_id: str, address: str) -> DistilfaceError:
    """Makes the exception for a failed call; `request_id` is what the client sent with it, `address` where to."""
    # Both kinds of gRPC call (sync and asyncio) answer these three, but no common base class declares them.
    call: Any = error
    return from_status(call.code(), call.details() or "", call.trailing_metadata(), request_id, address)


def from_status(
    code: grpc.StatusCode,
    message: str,
    metadata: Iterable[tuple[str, str | bytes]] | None,
    request_id: str,
    address: str = "",
) -> DistilfaceError:
    """Makes the exception for a status and the metadata that came with it.

    `request_id` is what the client sent, and `address` names the server in a message.
    """
    # Through a tuple: what grpc.aio gives here has keys(), but is no mapping that dict could read.
    trailers = dict(tuple(metadata or ()))
    details = _details(trailers.get(_DETAILS))
    info = _find(details, wire_pb2.ErrorInfo)
    said = _find(details, wire_pb2.RequestInfo)
    echoed = trailers.get(REQUEST_ID)
    bad = _find(details, wire_pb2.BadRequest)
    common: dict[str, Any] = {
        "code": code,
        "request_id": (said.request_id if said else "") or (echoed if isinstance(echoed, str) else request_id),
        "reason": info.reason if info else "",
        "violations": tuple(FieldViolation(v.field, v.description) for v in bad.field_violations) if bad else (),
    }
    message = message or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.UNAVAILABLE and info is None and _NOT_REACHED.search(message):
        # The library's words, not the server's.
        message = (
            f"no server answers at {address or 'this address'} ({message}); "
            "start one with `distilface serve`, or give the address that it prints"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC libraries use this code for oversized messages too, and waiting does not make those smaller.
        if info is None and "larger than max" in message:
            return TooLarge(message, **common)
        retry = _find(details, wire_pb2.RetryInfo)
        after = retry.retry_delay.ToTimedelta().total_seconds() if retry else None
        return Overloaded(message, retry_after=after, **common)
    return _CLASSES.get(code, DistilfaceError)(message, **common)


def _details(packed: str | bytes | None) -> list[Any]:
    """Unpacks the details of a `google.rpc.Status`; there are none if they are missing or damaged."""
    if not isinstance(packed, bytes):
        return []
    try:
        return list(wire_pb2.Status.FromString(packed).details)
    except DecodeError:
        return []


def _find(details: list[Any], kind: type[_M]) -> _M | None:
    """Finds the detail of this kind. It is named by the original's type; ours only has the same fields."""
    name = f"google.rpc.{kind.DESCRIPTOR.name}"
    for packed in details:
        if packed.type_url.rpartition("/")[2] == name:
            try:
                return kind.FromString(packed.value)
            except DecodeError:
                return None
    return None
