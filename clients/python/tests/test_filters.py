"""Filters made from Python values become the structured form that the server knows."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from distilface_client import all_of, any_of, field
from distilface_client.filters import Filter, to_filter


def wire(given: str | Filter) -> Any:
    made = to_filter(given)
    assert made is not None
    return json_format.MessageToDict(made)


def condition(**test: Any) -> Any:
    return {"condition": {"field": "f", **test}}


def test_each_comparison_is_its_condition() -> None:
    f = field("f")
    assert wire(f == "a") == condition(eq={"string": "a"})
    assert wire(f != 1) == condition(ne={"integer": "1"})
    assert wire(f > 1) == condition(range={"gt": {"integer": "1"}})
    assert wire(f >= 1.5) == condition(range={"gte": {"float": 1.5}})
    assert wire(f < 1) == condition(range={"lt": {"integer": "1"}})
    assert wire(f <= 1) == condition(range={"lte": {"integer": "1"}})
    assert wire(f.between(1, 2)) == condition(range={"gte": {"integer": "1"}, "lte": {"integer": "2"}})
    assert wire(f.is_in(["a", "b"])) == condition(**{"in": {"values": [{"string": "a"}, {"string": "b"}]}})
    assert wire(f.exists()) == condition(exists=True)
    assert wire(f.missing()) == condition(exists=False)
    assert wire(f.prefix("p")) == condition(prefix="p")
    assert wire(f.contains(True)) == condition(contains={"bool": True})


def test_operators_nest() -> None:
    a, b, c = field("f") == 1, field("f") == 2, field("f") == 3
    assert wire(a & b | ~c) == {"or": {"filters": [{"and": {"filters": [wire(a), wire(b)]}}, {"not": wire(c)}]}}
    assert wire(all_of(a, b, c)) == {"and": {"filters": [wire(a), wire(b), wire(c)]}}
    assert wire(any_of(a)) == {"or": {"filters": [wire(a)]}}


def test_text_is_left_to_the_server() -> None:
    assert wire("year >= 2000") == {"expression": "year >= 2000"}
    assert to_filter(None) is None


def test_equal_filters_are_equal() -> None:
    assert (field("f") == 1) == (field("f") == 1)
    assert (field("f") == 1) != (field("f") == 2)


def test_and_or_not_in_words_are_refused() -> None:
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(field("f") == 1)


def test_mistakes_are_named() -> None:
    bad: Any = ["a"]
    with pytest.raises(TypeError, match="filter on field 'f': compare with one value"):
        assert field("f") == bad
    none: Any = None
    with pytest.raises(TypeError, match="filter on field 'f': None is no value; use missing"):
        assert field("f") == none
    with pytest.raises(ValueError, match="filter on field 'f': character 0"):
        assert field("f") == "\ud800"
    with pytest.raises(ValueError, match="filter on field 'f': nan"):
        assert field("f") == float("nan")
    with pytest.raises(ValueError, match="at least one"):
        all_of()
    not_a_filter: Any = {"year": 2000}
    with pytest.raises(TypeError, match="not dict"):
        to_filter(not_a_filter)
