"""The guarded client: where it connects, and above all where it does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from observability.outbound import OutboundRefused, new_client
from observability.public_addresses import is_public

PRIVATE = [
    "0.0.0.0",  # noqa: S104 - not bound to
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.192",
    "::ffff:192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]

# Other ways to write private addresses, as a URL's host.
DISGUISED = [
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "127.0.0.1.",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[fe80::1%25lo]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_is_as_public_as_it_is_bare(address: Any) -> None:
    assert is_public(f"::ffff:{address}") == is_public(f"64:ff9b::{address}") == is_public(str(address))


class Listener:
    """Counts who connects to a loopback port, and answers them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with client, suppress(ConnectionError):
                client.recv(65_536)
                client.sendall(self.answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """A name server: for each name, the addresses of its successive answers; the last one repeats."""
    answers: dict[str, list[list[str]]] = {}
    genuine = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in answers:
            return genuine(host, port, *arguments, **options)
        script = answers[host]
        addresses = script.pop(0) if len(script) > 1 else script[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def get(*urls: str) -> list[httpx2.Response | httpx2.TransportError]:
    async def run() -> list[httpx2.Response | httpx2.TransportError]:
        outcomes: list[httpx2.Response | httpx2.TransportError] = []
        async with new_client() as client:
            for url in urls:
                try:
                    outcomes.append(await client.get(url, timeout=60))
                except httpx2.TransportError as error:
                    outcomes.append(error)
        return outcomes

    return asyncio.run(run())


@pytest.mark.parametrize("host", [*DISGUISED, *(f"[{host}]" if ":" in host else host for host in PRIVATE), "localhost", "LOCALHOST"])
def test_no_way_to_write_a_private_address_is_connected_to(host: str, listener: Listener, settings: Settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    try:
        [outcome] = get(f"http://{host}:{listener.port}/")
    except httpx2.InvalidURL:
        return
    assert isinstance(outcome, httpx2.TransportError)
    assert listener.connections == 0


@pytest.mark.parametrize("private", [["127.0.0.1"], ["::1"], ["10.0.0.8", "::ffff:127.0.0.1"], ["169.254.169.254"]])
def test_a_name_that_stands_for_private_addresses_is_refused(
    private: list[str], listener: Listener, names: dict[str, list[list[str]]], settings: Settings
) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    names["inside.example"] = [private]
    [outcome] = get(f"http://inside.example:{listener.port}/")
    assert isinstance(outcome, OutboundRefused)
    assert "OUTBOUND_ALLOWED_HOSTS" in str(outcome)
    assert listener.connections == 0


def test_a_name_that_changes_its_mind_gains_nothing(listener: Listener, names: dict[str, list[list[str]]], settings: Settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    names["rebinding.example"] = [["93.184.216.34"], ["127.0.0.1"]]
    outcomes = get(*[f"http://rebinding.example:{listener.port}/"] * 2)
    # The vetted address is the one connected to (tests have no network, which says so).
    assert "93.184.216.34" in str(outcomes[0])
    assert isinstance(outcomes[1], httpx2.TransportError)
    assert listener.connections == 0


def test_of_a_mixed_answer_only_the_public_addresses_are_tried(
    listener: Listener, names: dict[str, list[list[str]]], settings: Settings
) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    names["mixed.example"] = [["127.0.0.1", "93.184.216.34", "::1"]]
    [outcome] = get(f"http://mixed.example:{listener.port}/")
    assert "93.184.216.34" in str(outcome)
    assert listener.connections == 0


def test_a_name_that_cannot_be_resolved_is_no_refusal() -> None:
    [outcome] = get("http://nowhere.invalid/")
    assert isinstance(outcome, httpx2.ConnectError)
    assert not isinstance(outcome, OutboundRefused)


@pytest.mark.parametrize("form", ["{host}", "{host}:{port}", "{upper}:{port}"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inside.example"])
def test_the_operator_may_allow_a_host_or_one_port_of_it(
    form: str, host: str, listener: Listener, names: dict[str, list[list[str]]], settings: Settings
) -> None:
    names["inside.example"] = [["127.0.0.1"]]
    settings.OUTBOUND_ALLOWED_HOSTS = [form.format(host=host, upper=host.upper(), port=listener.port)]
    [outcome] = get(f"http://{host}:{listener.port}/")
    assert isinstance(outcome, httpx2.Response)
    assert outcome.text == "ok"


def test_allowing_one_port_or_host_allows_no_other(listener: Listener, settings: Settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = [f"127.0.0.1:{listener.port + 1}", "localhost:1", "0.0.0.1", "example"]
    for outcome in get(f"http://127.0.0.1:{listener.port}/", f"http://localhost:{listener.port}/", f"http://[::1]:{listener.port}/"):
        assert isinstance(outcome, httpx2.TransportError)
    assert listener.connections == 0


def test_redirects_are_not_followed(listener: Listener, settings: Settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    listener.answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/again\r\nContent-Length: 0\r\n\r\n" % listener.port
    [outcome] = get(f"http://127.0.0.1:{listener.port}/")
    assert isinstance(outcome, httpx2.Response)
    assert outcome.status_code == 302
    assert listener.connections == 1


def test_proxies_of_the_environment_are_not_used(listener: Listener, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    get("http://93.184.216.34/")
    assert listener.connections == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://93.184.216.34/", "gopher://93.184.216.34/", "unix:///tmp/socket"])
def test_other_schemes_are_refused(url: str) -> None:
    [outcome] = get(url)
    assert isinstance(outcome, httpx2.TransportError)


def test_an_endless_error_page_is_not_read_to_its_end(listener: Listener, settings: Settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    listener.answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 5_000_000
    [outcome] = get(f"http://127.0.0.1:{listener.port}/")
    assert isinstance(outcome, httpx2.Response)
    assert 64 * 1024 < len(outcome.content) < 1_000_000
