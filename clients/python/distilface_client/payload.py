"""Turns Python values into payload values and back.

`str`, `int`, `float`, `bool`, `datetime` and lists of one of them go in and come out as the same types.
Integers must fit into 64 bits, floats must be finite, and datetimes must name their time zone; these come back in
UTC, to the microsecond.

Some others are taken, and come back as these: a `date` as midnight UTC, tuples and sets as lists (sets in order),
NumPy's numbers and flat arrays as Python's numbers and lists, and lists of both integers and floats as lists of floats.
`None` is left out, in lists too. Anything else is refused here, with the field's name, before it is sent.

    >>> from_value(to_value(("a", "b", None)))
    ['a', 'b']
    >>> to_value(float("nan"), "payload field 'weight'")
    Traceback (most recent call last):
    ValueError: payload field 'weight': nan is not a finite number; leave the field out instead
"""

from __future__ import annotations

import datetime as dt
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ._generated import common_pb2

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

Scalar: TypeAlias = "str | int | float | bool | dt.datetime"
Comparable: TypeAlias = "Scalar | dt.date"
"""What a filter compares with: a value of a payload or a date. NumPy's numbers are taken too."""
PayloadValue: TypeAlias = "Scalar | Sequence[Scalar]"
"""What a field of a payload holds when it comes back: one value, or a list of values of one type."""
Payload: TypeAlias = "Mapping[str, Any]"
"""What may be sent: fields by name, with the values that the head of `payload.py` lists."""

_EPOCH = dt.datetime(1970, 1, 1)
# 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z, in microseconds since 1970: the server's bounds.
_MICROS_MIN = -62_135_596_800_000_000
_MICROS_MAX = 253_402_300_799_999_999


def to_value(value: object, where: str = "value") -> common_pb2.Value:
    """Makes a payload value for the wire. `where` names it in the message of an error.

    Raises `TypeError` for other types and mixed lists, `ValueError` for values out of bounds.
    """
    value = _native(value, where)
    if isinstance(value, (set, frozenset)):
        # Sets have no order; one that changed from run to run would be a change of the document.
        value = sorted(value, key=lambda element: (type(element).__name__, element))
    if not isinstance(value, (list, tuple)):
        return _scalar(value, where)
    values = [
        _scalar(_native(element, f"{where}[{i}]"), f"{where}[{i}]")
        for i, element in enumerate(value)
        if element is not None
    ]
    kinds = sorted({str(v.WhichOneof("kind")) for v in values})
    if kinds == ["float", "integer"]:
        values = [v if v.WhichOneof("kind") == "float" else _as_float(v.integer, where) for v in values]
    elif len(kinds) > 1:
        raise TypeError(f"{where}: a list holds values of one kind, this one holds {' and '.join(kinds)}")
    return common_pb2.Value(list=common_pb2.ValueList(values=values))


def from_value(value: common_pb2.Value) -> PayloadValue:
    """Reads a payload value from the wire."""
    kind = value.WhichOneof("kind")
    if kind is None:
        raise ValueError("a payload value of a kind that this client does not know; update distilface-client")
    found: Any = getattr(value, kind)
    if kind == "datetime":
        return from_timestamp(found)
    if kind == "list":
        # A list holds scalars only, so this does not recurse further.
        return [from_value(element) for element in found.values]  # type: ignore[misc]
    return found  # type: ignore[no-any-return]


def to_payload(payload: Payload, owner: str) -> dict[str, common_pb2.Value]:
    """Makes a payload for the wire, without the fields that are None; `owner` names the document in an error."""
    if not isinstance(payload, Mapping):
        raise TypeError(f"{owner}: the payload is a dict of fields, not {type(payload).__name__}")
    wire = {}
    for field, value in payload.items():
        if not isinstance(field, str):
            raise TypeError(f"{owner}: payload fields are named by strings, not by {field!r}")
        if value is not None:
            name = text(field, f"{owner}, name of a payload field")
            wire[name] = to_value(value, f"{owner}, payload field {field!r}")
    return wire


def text(value: object, where: str) -> str:
    """Checks a text for the wire. Raises `TypeError` if it is none, `ValueError` if UTF-8 cannot hold it."""
    if not isinstance(value, str):
        raise TypeError(f"{where}: {type(value).__name__} is no text; a str is needed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(value[error.start]):04X}"
        raise ValueError(
            f"{where}: character {error.start} is {found}, half of a surrogate pair, which no text holds; "
            "replace it, for example with value.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None
    return str(value)


def from_payload(payload: Mapping[str, common_pb2.Value]) -> dict[str, PayloadValue]:
    """Reads a payload from the wire, with its fields in alphabetical order."""
    return {field: from_value(payload[field]) for field in sorted(payload)}


def from_timestamp(timestamp: Any) -> dt.datetime:
    """Reads a moment from the wire, in UTC."""
    moment: dt.datetime = timestamp.ToDatetime(tzinfo=dt.timezone.utc)
    return moment


def _native(value: object, where: str) -> object:
    """Turns NumPy's scalars and arrays (and whatever else has a dtype) into Python's; leaves others as they are."""
    dtype: Any = getattr(value, "dtype", None)
    to_list: Any = getattr(value, "tolist", None)
    if dtype is None or to_list is None:
        return value
    if getattr(dtype, "kind", "") in ("M", "m"):
        raise TypeError(f"{where}: {dtype} has no time zone; send a datetime with tzinfo=datetime.timezone.utc")
    return to_list()


def _scalar(value: object, where: str) -> common_pb2.Value:
    # bool before int and datetime before date: each is a subclass of the other.
    if isinstance(value, bool):
        return common_pb2.Value(bool=value)
    if isinstance(value, str):
        return common_pb2.Value(string=text(value, where))
    if isinstance(value, numbers.Integral):
        number = int(value)
        if not INT64_MIN <= number <= INT64_MAX:
            raise ValueError(f"{where}: {number} does not fit into 64 bits; send it as a float or a string")
        return common_pb2.Value(integer=number)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a finite number; leave the field out instead")
        return common_pb2.Value(float=float(value))
    if isinstance(value, dt.datetime):
        return _datetime(value, where)
    if isinstance(value, dt.date):
        return _datetime(dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc), where)
    if isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"{where}: a list holds no further lists")
    raise TypeError(
        f"{where}: {type(value).__name__} cannot be stored; "
        "allowed are str, int, float, bool, date, datetime with a time zone, and lists of one of them"
    )


def _as_float(number: int, where: str) -> common_pb2.Value:
    if int(float(number)) != number:
        raise ValueError(f"{where}: the list mixes floats with the integer {number}, which no float is equal to")
    return common_pb2.Value(float=float(number))


def _datetime(value: dt.datetime, where: str) -> common_pb2.Value:
    offset = value.utcoffset()
    if offset is None:
        raise ValueError(f"{where}: {value!r} has no time zone; add one, such as tzinfo=datetime.timezone.utc")
    # Not by datetime's own conversion: near both ends of its calendar the moment in UTC would lie outside.
    micros = (value.replace(tzinfo=None) - _EPOCH - offset) // dt.timedelta(microseconds=1)
    seconds, rest = divmod(min(max(micros, _MICROS_MIN), _MICROS_MAX), 1_000_000)
    wire = common_pb2.Value()
    wire.datetime.seconds = seconds
    wire.datetime.nanos = rest * 1000
    return wire
