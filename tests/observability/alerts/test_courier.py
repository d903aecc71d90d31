"""The courier's guard: whatever a plugin does, it meets public or allowed addresses only, and starts nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live_server import PROJECT_DIR

GUARDED = """
import os, socket, subprocess, sys
from observability.alerts import courier
courier._guard(courier._Journey(("localhost",)))
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    try:
        {act}
    except courier.Refused:
        print("refused")
    else:
        print("allowed")
"""


def doing(act):
    done = subprocess.run([sys.executable, "-c", GUARDED.format(act=act)], cwd=PROJECT_DIR, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "act",
    [
        "socket.socket().connect(('127.0.0.1', port))",
        "socket.socket().connect_ex(('127.0.0.1', port))",
        "socket.create_connection(('127.0.0.1', port))",
        "socket.create_connection(('169.254.169.254', 80))",
        "socket.getaddrinfo('10.0.0.1', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('127.0.0.1', port))",
        "socket.socket(socket.AF_INET).connect(('localhost', port))",
        "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "os.system('true')",
        "subprocess.run(['true'])",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_refused(act):
    assert doing(act) == "refused"


@pytest.mark.parametrize(
    "act",
    [
        "socket.create_connection(('localhost', port)).sendmsg([b'x'])",  # the operator allows that host
        "socket.getaddrinfo('192.88.99.99', 80)",
    ],
)
def test_allowed(act):
    assert doing(act) == "allowed"
