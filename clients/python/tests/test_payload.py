"""Payload values go in and come out the same, and what cannot be stored is refused with its name."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from distilface_client import payload
from distilface_client._generated import common_pb2

CEST = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text with ünïcode 🙂",
        0,
        -1,
        payload.INT64_MIN,
        payload.INT64_MAX,
        0.5,
        -0.0,
        1e300,
        True,
        False,
        dt.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=dt.timezone.utc),
        dt.datetime(1815, 12, 10, tzinfo=dt.timezone.utc),
        ["a", "b"],
        [1, 2, 3],
        [1.5],
        [True, False],
        [],
    ],
)
def test_values_come_back_as_they_went(value: Any) -> None:
    wire = common_pb2.Value.FromString(payload.to_value(value).SerializeToString())
    back = payload.from_value(wire)
    assert back == value
    assert type(back) is type(value)


def test_true_is_a_bool_and_not_the_integer_one() -> None:
    assert payload.to_value(True).WhichOneof("kind") == "bool"
    assert payload.to_value(1).WhichOneof("kind") == "integer"
    assert payload.to_value(1.0).WhichOneof("kind") == "float"


def test_datetimes_come_back_in_utc() -> None:
    moment = dt.datetime(2024, 7, 1, 12, 0, tzinfo=CEST)
    back = payload.from_value(payload.to_value(moment))
    assert isinstance(back, dt.datetime)
    assert back == moment
    assert back.utcoffset() == dt.timedelta(0)
    assert back.hour == 10


def test_tuples_are_lists() -> None:
    assert payload.from_value(payload.to_value(("a", "b"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (payload.INT64_MAX + 1, ValueError, "64 bits"),
        (payload.INT64_MIN - 1, ValueError, "64 bits"),
        (float("nan"), ValueError, "finite"),
        (float("inf"), ValueError, "finite"),
        (dt.datetime(2024, 1, 1), ValueError, "time zone"),
        (dt.date(2024, 1, 1), TypeError, "date cannot be stored"),
        (None, TypeError, "NoneType cannot be stored"),
        ({"a": 1}, TypeError, "dict cannot be stored"),
        (b"bytes", TypeError, "bytes cannot be stored"),
        (Decimal("1.5"), TypeError, "Decimal cannot be stored"),
        ([1, "a"], TypeError, "integer and string"),
        ([1, 2.5], TypeError, "float and integer"),
        ([True, 1], TypeError, "bool and integer"),
        ([["a"]], TypeError, "no further lists"),
        (["a", None], TypeError, "[1]"),
    ],
)
def test_what_cannot_be_stored_is_refused(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        payload.to_payload({"field name": value}, "document 'd'")
    assert said in str(caught.value)
    assert "document 'd', payload field 'field name'" in str(caught.value)


def test_field_names_are_strings() -> None:
    bad: Any = {1: "x"}
    with pytest.raises(TypeError, match="named by strings"):
        payload.to_payload(bad, "document 'd'")


def test_a_value_of_an_unknown_kind_is_an_error_not_none() -> None:
    with pytest.raises(ValueError, match="update distilface-client"):
        payload.from_value(common_pb2.Value())


def test_payloads_come_back_in_alphabetical_order() -> None:
    wire = payload.to_payload({"b": 1, "a": "x"}, "document 'd'")
    assert list(payload.from_payload(wire).items()) == [("a", "x"), ("b", 1)]
