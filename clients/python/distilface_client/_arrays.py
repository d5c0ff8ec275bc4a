"""Turns vectors into NumPy arrays where NumPy is installed; the client does not need it otherwise."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any


def array(values: Sequence[Any]) -> Any:
    """Makes an array of float32, in which the server computes too. Raises `ImportError` without NumPy."""
    try:
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        raise ImportError("numpy() needs NumPy, which distilface-client does not install: pip install numpy") from error
    return numpy.array(values, dtype="float32")


def converted(made: Any, dtype: Any, copy: bool | None) -> Any:
    """Gives `__array__` its answer: an array that was made now, as another type if that is asked for."""
    if copy is False:
        raise ValueError("vectors are no arrays yet, so one cannot be had without a copy")
    return made if dtype is None else made.astype(dtype)
