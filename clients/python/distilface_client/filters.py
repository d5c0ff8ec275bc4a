"""Builds conditions on payloads from Python values instead of text.

    >>> recent = (field("year") >= 2000) & field("tags").contains("draft") & ~field("retracted").exists()

`recent` means the same as the text `year >= 2000 and tags contains "draft" and not exists(retracted)`, which may be
given wherever a filter is expected. Conditions that are built need no quoting. A condition on a list field holds if it
holds for any element. Numbers are compared exactly, also integers with floats; upper and lower case differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._generated import common_pb2
from .payload import Comparable, text, to_value


class Filter:
    """Holds a condition. Combine conditions with `&`, `|` and `~`; Python cannot overload `and`, `or` and `not`.

    `&` and `|` bind more tightly than comparisons, so put each comparison in brackets.

    >>> condition = (field("year") >= 2000) | ~field("year").exists()
    """

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
    """Names a payload field, from which conditions are made by comparing it.

    `name` is the field's name, 1 to 256 bytes.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, value: Comparable) -> Filter:  # type: ignore[override]
        return self._condition(eq=self._value(value))

    def __ne__(self, value: Comparable) -> Filter:  # type: ignore[override]
        """Holds where the field differs, and where it is missing."""
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
        """Holds for values from `low` to `high`, both included.

        >>> condition = field("year").between(2000, 2009)
        """
        return self._condition(range=common_pb2.Range(gte=self._value(low), lte=self._value(high)))

    def is_in(self, values: Iterable[Comparable]) -> Filter:
        """Holds for each of these `values`.

        >>> condition = field("lang").is_in(["de", "en"])
        """
        listed = common_pb2.ValueList(values=[self._value(value) for value in values])
        return self._condition(**{"in": listed})

    def exists(self) -> Filter:
        """Holds where the document has this field."""
        return self._condition(exists=True)

    def missing(self) -> Filter:
        """Holds where the document does not have this field."""
        return self._condition(exists=False)

    def prefix(self, prefix: str) -> Filter:
        """Holds for strings that begin with `prefix`.

        >>> condition = field("path").prefix("/etc/")
        """
        return self._condition(prefix=text(prefix, f"filter on field {self.name!r}"))

    def contains(self, value: Comparable) -> Filter:
        """Holds for lists that have this `value` among their elements, and for strings that have it as a part.

        >>> condition = field("tags").contains("draft")
        """
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
    """Names a payload field, 1 to 256 bytes, to make conditions from.

    >>> condition = field("year") >= 2000
    """
    return Field(name)


def all_of(*filters: Filter) -> Filter:
    """Holds where all of the `filters` hold, of which there is at least one; `a & b` means the same.

    >>> all_of(field("year") >= 2000, field("lang") == "en") == (field("year") >= 2000) & (field("lang") == "en")
    True
    """
    return _combined("and", _listed(filters))


def any_of(*filters: Filter) -> Filter:
    """Holds where at least one of the `filters` holds; `a | b` means the same.

    >>> any_of(field("lang") == "en", field("lang") == "de") == (field("lang") == "en") | (field("lang") == "de")
    True
    """
    return _combined("or", _listed(filters))


def to_filter(given: str | Filter | None) -> common_pb2.Filter | None:
    """Makes a filter for the wire from text or from conditions."""
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
