"""Python values <-> payload values.

`str`, `int`, `float`, `bool`, aware `datetime` and lists of one of them go in and come out as the same types.
Integers must fit into 64 bits, floats must be finite, datetimes must name their time zone (they come back in UTC,
to the microsecond); anything else is refused here, before it is sent.
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
PayloadValue: TypeAlias = "Scalar | Sequence[Scalar]"
Payload: TypeAlias = "Mapping[str, PayloadValue]"


def to_value(value: PayloadValue, where: str = "value") -> common_pb2.Value:
    """A payload value for the wire. `where` names it in the message of an error.

    Raises `TypeError` for other types and mixed lists, `ValueError` for values out of bounds.
    """
    if not isinstance(value, (list, tuple)):
        return _scalar(value, where)
    values = [_scalar(element, f"{where}[{i}]") for i, element in enumerate(value)]
    kinds = sorted({str(v.WhichOneof("kind")) for v in values})
    if len(kinds) > 1:
        raise TypeError(f"{where}: a list holds values of one kind, this one holds {' and '.join(kinds)}")
    return common_pb2.Value(list=common_pb2.ValueList(values=values))


def from_value(value: common_pb2.Value) -> PayloadValue:
    """A payload value from the wire."""
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
    """A payload for the wire; `owner` names the document in the message of an error."""
    wire = {}
    for field, value in payload.items():
        if not isinstance(field, str):
            raise TypeError(f"{owner}: payload fields are named by strings, not by {field!r}")
        wire[field] = to_value(value, f"{owner}, payload field {field!r}")
    return wire


def from_payload(payload: Mapping[str, common_pb2.Value]) -> dict[str, PayloadValue]:
    """A payload from the wire, fields in alphabetical order."""
    return {field: from_value(payload[field]) for field in sorted(payload)}


def from_timestamp(timestamp: Any) -> dt.datetime:
    """A moment in UTC."""
    moment: dt.datetime = timestamp.ToDatetime(tzinfo=dt.timezone.utc)
    return moment


def _scalar(value: object, where: str) -> common_pb2.Value:
    # bool before int and datetime before date: each is a subclass of the other.
    if isinstance(value, bool):
        return common_pb2.Value(bool=value)
    if isinstance(value, str):
        return common_pb2.Value(string=value)
    if isinstance(value, numbers.Integral):  # int and NumPy's integers
        number = int(value)
        if not INT64_MIN <= number <= INT64_MAX:
            raise ValueError(f"{where}: {number} does not fit into 64 bits; send it as a float or a string")
        return common_pb2.Value(integer=number)
    if isinstance(value, numbers.Real) and isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a finite number; leave the field out instead")
        return common_pb2.Value(float=float(value))
    if isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{where}: {value!r} has no time zone; add one, such as tzinfo=datetime.timezone.utc")
        wire = common_pb2.Value()
        wire.datetime.FromDatetime(value)
        return wire
    if isinstance(value, (list, tuple)):
        raise TypeError(f"{where}: a list holds no further lists")
    raise TypeError(
        f"{where}: {type(value).__name__} cannot be stored; "
        "allowed are str, int, float, bool, datetime with a time zone, and lists of one of them"
    )
