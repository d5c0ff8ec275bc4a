"""Payload values go in and come out the same, and what cannot be stored is refused with its name."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from distilface_client import payload
from distilface_client._generated import common_pb2

CEST = dt.timezone(dt.timedelta(hours=2))
WEST = dt.timezone(-dt.timedelta(hours=5))


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


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        (("a", "b"), ["a", "b"]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1, 2}), [1, 2, 3]),
        (["a", None, "b"], ["a", "b"]),
        ([1, 2.5], [1.0, 2.5]),
        (dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc)),
        ([dt.date(1, 1, 1)], [dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc)]),
        (dt.date(9999, 12, 31), dt.datetime(9999, 12, 31, tzinfo=dt.timezone.utc)),
        # Near both ends of the calendar the moment in UTC would lie outside of it.
        (dt.datetime.max.replace(tzinfo=WEST), dt.datetime.max.replace(tzinfo=dt.timezone.utc)),
        (dt.datetime.min.replace(tzinfo=CEST), dt.datetime.min.replace(tzinfo=dt.timezone.utc)),
    ],
)
def test_what_is_near_to_a_value_becomes_one(sent: Any, back: Any) -> None:
    found = payload.from_value(payload.to_value(sent))
    assert found == back
    assert type(found) is type(back)


def test_fields_that_are_none_are_left_out() -> None:
    assert list(payload.to_payload({"a": None, "b": 1}, "document 'd'")) == ["b"]


def test_numpy_values_become_pythons_or_are_refused_by_name() -> None:
    np = pytest.importorskip("numpy")
    for sent, back in [
        (np.int64(-5), -5),
        (np.uint8(5), 5),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array(7), 7),
        (np.array([1, 2, 3]), [1, 2, 3]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.float32(0.5), np.int32(1)], [0.5, 1.0]),
    ]:
        found = payload.from_value(payload.to_value(sent))
        assert (found, type(found)) == (back, type(back)), repr(sent)
    for sent, said in [
        (np.uint64(2**63), "64 bits"),
        (np.float64("nan"), "finite"),
        (np.array([[1]]), "no further lists"),
        (np.datetime64("2024-01-01"), "no time zone"),
        (np.array([1j]), "complex cannot be stored"),
    ]:
        with pytest.raises((TypeError, ValueError), match=said) as caught:
            payload.to_payload({"n": sent}, "document 'd'")
        assert "document 'd', payload field 'n'" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (payload.INT64_MAX + 1, ValueError, "64 bits"),
        (payload.INT64_MIN - 1, ValueError, "64 bits"),
        (float("nan"), ValueError, "finite"),
        (float("inf"), ValueError, "finite"),
        (dt.datetime(2024, 1, 1), ValueError, "time zone"),
        ("a\ud800b", ValueError, "character 1 is U+D800, half of a surrogate pair"),
        (["x", "\udfff"], ValueError, "[1]: character 0 is U+DFFF"),
        ({"a": 1}, TypeError, "dict cannot be stored"),
        (b"bytes", TypeError, "bytes cannot be stored"),
        (Decimal("1.5"), TypeError, "Decimal cannot be stored"),
        ([1, "a"], TypeError, "integer and string"),
        ([0.5, 2**53 + 1], ValueError, "no float is equal to"),
        ([True, 1], TypeError, "bool and integer"),
        ([["a"]], TypeError, "no further lists"),
        (["a", b"b"], TypeError, "[1]"),
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
