"""Addresses, channel options and pauses."""

from __future__ import annotations

import math
import time

import pytest

from distilface_client import DeadlineExceeded, Retry
from distilface_client._methods import Address, channel_options, credentials_for, time_left


@pytest.mark.parametrize(
    ("given", "target", "secure", "loopback"),
    [
        ("127.0.0.1:7700", "127.0.0.1:7700", False, True),
        ("http://127.0.0.1:7700", "127.0.0.1:7700", False, True),
        ("http://localhost:1/", "localhost:1", False, True),
        ("[::1]:7700", "[::1]:7700", False, True),
        ("search.example:443", "search.example:443", False, False),
        ("https://search.example:443", "search.example:443", True, False),
        ("unix:///run/distilface.sock", "unix:///run/distilface.sock", False, True),
    ],
)
def test_addresses_are_understood(given: str, target: str, secure: bool, loopback: bool) -> None:
    address = Address.parse(given)
    assert (address.target, address.secure, address.loopback) == (target, secure, loopback)
    assert (credentials_for(address, None) is not None) == secure


@pytest.mark.parametrize("given", ["", "localhost", ":7700", "localhost:", "localhost:port", "localhost:70000"])
def test_bad_addresses_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        Address.parse(given)


def test_loopback_goes_past_proxies() -> None:
    assert ("grpc.enable_http_proxy", 0) in channel_options(Address.parse("127.0.0.1:1"), 1)
    assert ("grpc.enable_http_proxy", 0) not in channel_options(Address.parse("search.example:1"), 1)


def test_pauses_double_up_to_a_limit() -> None:
    retry = Retry(first_pause=1.0, longest_pause=3.0)
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 3.0), (9, 3.0)):
        for _ in range(20):
            assert longest / 2 <= retry.pause(attempt) <= longest


def test_time_that_has_run_out_sends_nothing() -> None:
    assert time_left(math.inf, "r") is None
    left = time_left(time.monotonic() + 5, "r")
    assert left is not None
    assert 4 < left <= 5
    with pytest.raises(DeadlineExceeded) as caught:
        time_left(time.monotonic(), "r")
    assert caught.value.request_id == "r"
