"""Conditions on payloads, built from Python values instead of text.

    from distilface_client import field
    recent = (field("year") >= 2000) & field("tags").contains("draft") & ~field("retracted").exists()

means the same as the text `year >= 2000 and tags contains "draft" and not exists(retracted)`, which may be given
wherever a filter is expected, and needs no quoting. A condition on a list field holds if it holds for any element.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._generated import common_pb2
from .payload import Comparable, text, to_value


class Filter:
    """A condition. Combine with `&`, `|` and `~` (`and`, `or` and `not` cannot be overloaded)."""

    __slots__ = ("_wire",)

    def __init__(self, wire: common_pb2.Filter) -> None:
        self._wire = wire

    def __and__(self, other: Filter) -> Filter:
        return all_of(self, other)

    def __or__(self, other: Filter) -> Filter:
        return any_of(self, other)

    def __invert__(self) -> Filter:
        return _combined("not", self._wire)

    def __bool__(self) -> bool:
        raise TypeError("a filter is neither true nor false; combine filters with &, | and ~ and put them in brackets")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._wire == other._wire

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Filter({str(self._wire).strip()!r})"


class Field:
    """A payload field, from which conditions are made."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, value: Comparable) -> Filter:  # type: ignore[override]
        return self._condition(eq=self._value(value))

    def __ne__(self, value: Comparable) -> Filter:  # type: ignore[override]
        """Also true where the field is missing."""
        return self._condition(ne=self._value(value))

    __hash__ = None  # type: ignore[assignment]

    def __gt__(self, value: Comparable) -> Filter:
        return self._condition(range=common_pb2.Range(gt=self._value(value)))

    def __ge__(self, value: Comparable) -> Filter:
        return self._condition(range=common_pb2.Range(gte=self._value(value)))

    def __lt__(self, value: Comparable) -> Filter:
        return self._condition(range=common_pb2.Range(lt=self._value(value)))

    def __le__(self, value: Comparable) -> Filter:
        return self._condition(range=common_pb2.Range(lte=self._value(value)))

    def between(self, low: Comparable, high: Comparable) -> Filter:
        """From `low` to `high`, both included."""
        return self._condition(range=common_pb2.Range(gte=self._value(low), lte=self._value(high)))

    def is_in(self, values: Iterable[Comparable]) -> Filter:
        """One of these values."""
        listed = common_pb2.ValueList(values=[self._value(value) for value in values])
        return self._condition(**{"in": listed})

    def exists(self) -> Filter:
        """The document has this field."""
        return self._condition(exists=True)

    def missing(self) -> Filter:
        """The document does not have this field."""
        return self._condition(exists=False)

    def prefix(self, prefix: str) -> Filter:
        """A string that begins so."""
        return self._condition(prefix=text(prefix, f"filter on field {self.name!r}"))

    def contains(self, value: Comparable) -> Filter:
        """A list with this element, or a string with this part."""
        return self._condition(contains=self._value(value))

    def __repr__(self) -> str:
        return f"field({self.name!r})"

    def _value(self, value: Comparable) -> common_pb2.Value:
        if isinstance(value, (list, tuple, set, frozenset)) or getattr(value, "shape", ()) != ():
            raise TypeError(f"filter on field {self.name!r}: compare with one value, or use is_in([...])")
        if value is None:
            raise TypeError(f"filter on field {self.name!r}: None is no value; use missing() or exists()")
        return to_value(value, f"filter on field {self.name!r}")

    def _condition(self, **test: object) -> Filter:
        condition = common_pb2.Condition(field=self.name, **test)  # type: ignore[arg-type]
        return Filter(common_pb2.Filter(condition=condition))


def field(name: str) -> Field:
    """The payload field of this name, to make conditions from: `field("year") >= 2000`."""
    return Field(name)


def all_of(*filters: Filter) -> Filter:
    """All of them hold."""
    return _combined("and", _listed(filters))


def any_of(*filters: Filter) -> Filter:
    """At least one of them holds."""
    return _combined("or", _listed(filters))


def to_filter(given: str | Filter | None) -> common_pb2.Filter | None:
    """A filter for the wire, from text or from conditions."""
    if given is None:
        return None
    if isinstance(given, str):
        return common_pb2.Filter(expression=text(given, "filter"))
    if isinstance(given, Filter):
        return given._wire
    raise TypeError(f"a filter is text or made with field(...), not {type(given).__name__}")


def _listed(filters: tuple[Filter, ...]) -> common_pb2.FilterList:
    if not filters:
        raise ValueError("name at least one filter")
    return common_pb2.FilterList(filters=[f._wire for f in filters])


def _combined(form: str, parts: common_pb2.Filter | common_pb2.FilterList) -> Filter:
    # and, or and not are words of Python, so these fields can only be named by strings.
    wire = common_pb2.Filter()
    getattr(wire, form).CopyFrom(parts)
    return Filter(wire)
