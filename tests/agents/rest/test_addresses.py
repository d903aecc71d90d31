"""Which header tells the address of a caller behind a proxy."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from agents.rest.authentication import address_of

RAILWAY = {"REMOTE_ADDR": "100.64.0.2", "HTTP_X_REAL_IP": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "198.51.100.9"}


@pytest.mark.parametrize(
    ("header", "proxies", "address"),
    [
        ("X-Real-IP", ["100.64.0.0/10"], "203.0.113.7"),
        ("X-Forwarded-For", ["100.64.0.0/10"], "198.51.100.9"),
        ("X-Real-IP", ["10.0.0.0/8"], "100.64.0.2"),  # of a proxy that is not trusted nothing is believed
    ],
)
def test_the_named_header_of_a_trusted_proxy_is_believed(settings, header, proxies, address):
    settings.CLIENT_ADDRESS_HEADER, settings.TRUSTED_PROXIES = header, proxies
    assert address_of(RequestFactory().get("/", **RAILWAY)) == address
