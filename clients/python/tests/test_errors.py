"""Statuses become exceptions with message, request id and details."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

import distilface_client
from distilface_client import errors
from distilface_client._generated import wire_pb2

C = grpc.StatusCode


def trailers(*details: tuple[str, Any]) -> Iterable[tuple[str, str | bytes]]:
    status = wire_pb2.Status()
    for name, detail in details:
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=detail.SerializeToString())
    return [("grpc-status-details-bin", status.SerializeToString())]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (C.INVALID_ARGUMENT, errors.InvalidArgument),
        (C.OUT_OF_RANGE, errors.TooLarge),
        (C.NOT_FOUND, errors.NotFound),
        (C.ALREADY_EXISTS, errors.AlreadyExists),
        (C.FAILED_PRECONDITION, errors.FailedPrecondition),
        (C.UNAUTHENTICATED, errors.Unauthenticated),
        (C.PERMISSION_DENIED, errors.Forbidden),
        (C.RESOURCE_EXHAUSTED, errors.Overloaded),
        (C.UNAVAILABLE, errors.Unavailable),
        (C.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (C.DATA_LOSS, errors.DataLoss),
        (C.INTERNAL, errors.Internal),
        (C.UNIMPLEMENTED, errors.DistilfaceError),
        (C.CANCELLED, errors.DistilfaceError),
    ],
)
def test_every_code_has_its_class(code: grpc.StatusCode, kind: type[errors.DistilfaceError]) -> None:
    error = errors.from_status(code, "what was wrong", None, "sent")
    assert type(error) is kind
    assert (error.code, error.message, error.request_id, error.reason) == (code, "what was wrong", "sent", "")
    assert str(error) == "what was wrong (request sent)"


KINDS = {
    "INVALID": (C.INVALID_ARGUMENT, errors.InvalidArgument),
    "NOT_FOUND": (C.NOT_FOUND, errors.NotFound),
    "EXISTS": (C.ALREADY_EXISTS, errors.AlreadyExists),
    "PRECONDITION": (C.FAILED_PRECONDITION, errors.FailedPrecondition),
    "UNAUTHENTICATED": (C.UNAUTHENTICATED, errors.Unauthenticated),
    "FORBIDDEN": (C.PERMISSION_DENIED, errors.Forbidden),
    "OVERLOADED": (C.RESOURCE_EXHAUSTED, errors.Overloaded),
    "UNAVAILABLE": (C.UNAVAILABLE, errors.Unavailable),
    "TIMEOUT": (C.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    "CORRUPT": (C.DATA_LOSS, errors.DataLoss),
    "INTERNAL": (C.INTERNAL, errors.Internal),
}


@pytest.mark.parametrize("reason", KINDS)
def test_every_kind_of_the_server_has_its_class(reason: str) -> None:
    code, kind = KINDS[reason]
    metadata = trailers(
        ("ErrorInfo", wire_pb2.ErrorInfo(reason=reason, domain="distilface")),
        ("RequestInfo", wire_pb2.RequestInfo(request_id="r-1")),
    )
    error = errors.from_status(code, "what was wrong", metadata, "sent")
    assert type(error) is kind
    assert (error.reason, error.code, error.request_id) == (reason, code, "r-1")


def test_every_class_stands_for_a_kind_and_is_exported_and_in_the_readme() -> None:
    declared = (kind for kind in vars(errors).values() if isinstance(kind, type))
    classes = {kind for kind in declared if issubclass(kind, errors.DistilfaceError)}
    # Of these two, one is the base of all, and the other a case of an invalid request.
    assert classes - {errors.DistilfaceError, errors.TooLarge} == {kind for _, kind in KINDS.values()}
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    for kind in classes:
        assert kind.__name__ in distilface_client.__all__
        assert getattr(distilface_client, kind.__name__) is kind
        assert f"`{kind.__name__}`" in readme
    for reason in KINDS:
        assert f"`{reason}`" in readme


def test_details_are_read() -> None:
    bad = wire_pb2.BadRequest()
    bad.field_violations.add(field="k", description="k must be at least 1")
    metadata = trailers(
        ("ErrorInfo", wire_pb2.ErrorInfo(reason="INVALID", domain="distilface")),
        ("RequestInfo", wire_pb2.RequestInfo(request_id="r-1")),
        ("BadRequest", bad),
    )
    error = errors.from_status(C.INVALID_ARGUMENT, "k must be at least 1", metadata, "sent")
    assert (error.reason, error.request_id) == ("INVALID", "r-1")
    assert error.violations == (errors.FieldViolation("k", "k must be at least 1"),)


def test_overloaded_says_how_long_to_wait() -> None:
    retry = wire_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(200)
    error = errors.from_status(C.RESOURCE_EXHAUSTED, "full", trailers(("RetryInfo", retry)), "sent")
    assert isinstance(error, errors.Overloaded)
    assert error.retry_after == pytest.approx(0.2)
    unsaid = errors.from_status(C.RESOURCE_EXHAUSTED, "full", None, "sent")
    assert isinstance(unsaid, errors.Overloaded)
    assert unsaid.retry_after is None


def test_an_oversized_message_is_not_taken_for_overload() -> None:
    error = errors.from_status(C.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)", None, "sent")
    assert type(error) is errors.TooLarge


def test_the_id_in_the_metadata_counts_where_details_are_missing_or_damaged() -> None:
    error = errors.from_status(C.UNAVAILABLE, "draining", [("x-request-id", "r-2")], "sent")
    assert error.request_id == "r-2"
    error = errors.from_status(C.UNAVAILABLE, "draining", [("grpc-status-details-bin", b"\xff\xff")], "sent")
    assert error.request_id == "sent"
    status = wire_pb2.Status()
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    damaged = [("grpc-status-details-bin", status.SerializeToString())]
    assert errors.from_status(C.UNAVAILABLE, "draining", damaged, "sent").reason == ""


def test_a_status_without_a_message_still_says_something() -> None:
    assert str(errors.from_status(C.DEADLINE_EXCEEDED, "", None, "")) == "deadline exceeded"


def test_the_id_is_not_told_twice() -> None:
    error = errors.from_status(C.INTERNAL, "internal error; request id r-3", None, "r-3")
    assert str(error) == "internal error; request id r-3"


def test_a_server_that_is_not_reached_is_said_to_be_missing_and_how_to_start_one() -> None:
    for words in ("failed to connect to all addresses; last error: Connection refused", "DNS resolution failed for x"):
        error = errors.from_status(C.UNAVAILABLE, words, None, "sent", "127.0.0.1:7700")
        assert type(error) is errors.Unavailable
        for part in ("no server answers at 127.0.0.1:7700", words, "`distilface serve`"):
            assert part in error.message
        assert error.request_id == "sent"
    # Of a server that is there, its own words.
    said = trailers(("ErrorInfo", wire_pb2.ErrorInfo(reason="UNAVAILABLE", domain="distilface")))
    error = errors.from_status(C.UNAVAILABLE, "the server is shutting down its connections", said, "sent", "a:1")
    assert error.message == "the server is shutting down its connections"
