"""Counts of processes that share a folder: added up, and never lost to a kill."""

import os
import subprocess
import sys
from contextlib import ExitStack

import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from observability.slots import forget_the_dead
from tests.waiting import eventually

# A process that counts what it is told to, and says in which slot: "+" counts a message, "(" opens a stream.
_COUNTING = """
import sys
from observability import metrics, slots
print(slots.slot(), flush=True)
for line in sys.stdin:
    for sign in line.strip():
        {"+": lambda: metrics.messages.of("bot", "done").inc(), "(": lambda: metrics.open_streams.inc()}[sign]()
    print("counted", flush=True)
"""


class Counting:
    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COUNTING],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def slot(self):
        return self._process.stdout.readline().strip()

    def count(self, signs):
        self._process.stdin.write(f"{signs}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "counted\n"

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def start(tmp_path):
    with ExitStack() as stack:

        def start(count=1):
            started = [Counting(tmp_path) for _ in range(count)]
            for one in started:
                stack.callback(one.kill)
            return started

        yield start


def value(folder, name, **labels):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return registry.get_sample_value(name, labels)


def test_each_process_takes_the_lowest_free_slot(start):
    processes = start(3)
    slots = {one.slot(): one for one in processes}
    assert set(slots) == {"0", "1", "2"}
    slots["1"].kill()
    [successor] = start()
    assert successor.slot() == "1"


def test_who_takes_a_killed_ones_place_goes_on_with_its_counts(start, tmp_path):
    first, second = start(2)
    places = [first.slot(), second.slot()]
    first.count("+++")
    second.count("+")
    assert value(tmp_path, "chatbot_messages_total", agent="bot", outcome="done") == 4
    files = sorted(file.name for file in tmp_path.glob("*.db"))
    for expected in (5, 6, 7):
        first.kill()
        assert value(tmp_path, "chatbot_messages_total", agent="bot", outcome="done") == expected - 1
        [first] = start()
        assert first.slot() == places[0]
        first.count("+")
        assert value(tmp_path, "chatbot_messages_total", agent="bot", outcome="done") == expected
    assert sorted(file.name for file in tmp_path.glob("*.db")) == files


def test_the_streams_of_a_killed_process_are_open_no_more(start, tmp_path):
    first, second = start(2)
    for one in (first, second):
        one.slot()
        one.count("((")
    forget_the_dead(tmp_path)
    assert value(tmp_path, "chatbot_open_streams") == 4
    first.kill()
    forget_the_dead(tmp_path)  # before anybody takes its place
    assert value(tmp_path, "chatbot_open_streams") == 2


def test_who_takes_a_killed_ones_place_begins_without_its_streams(start, tmp_path):
    [first] = start()
    first.slot()
    first.count("((")
    first.kill()
    [successor] = start()
    assert successor.slot() == "0"
    successor.count("(")
    assert value(tmp_path, "chatbot_open_streams") == 1


def test_a_child_leaves_its_parents_slot_alone(tmp_path):
    program = """
import os
from observability import slots
mine = slots.slot()
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, slots.slot().encode())
    os._exit(0)
os.wait()
print(mine, os.read(reader, 10).decode(), slots.slot())
"""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "1", "0"], done.stderr


# A server: makes its folder, forks a worker, and waits.
_SERVER = """
import os, sys, time
from observability.slots import make_folder
folder = make_folder(sys.argv[1])
if worker := os.fork():
    print(folder, worker, flush=True)
time.sleep(60)
"""


class Server:
    def __init__(self, parent):
        self._process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", _SERVER, str(parent)], stdout=subprocess.PIPE, text=True)
        folder, worker = self._process.stdout.readline().split()
        self.folder, self._worker = folder, psutil.Process(int(worker))

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def kill_worker(self):
        self._worker.kill()
        eventually(lambda: not self._worker.is_running() or self._worker.status() == psutil.STATUS_ZOMBIE, what="the worker is gone")


def test_folders_of_killed_servers_are_removed_by_the_next_one(tmp_path):
    def folders():
        return {str(path) for path in tmp_path.iterdir()}

    first = Server(tmp_path)
    second = Server(tmp_path)
    try:
        assert folders() == {first.folder, second.folder}
        first.kill()
        third = Server(tmp_path)
        assert folders() == {first.folder, second.folder, third.folder}  # a worker of the first still lives
        first.kill_worker()
        third.kill_worker()
        third.kill()
        fourth = Server(tmp_path)
        assert folders() == {second.folder, fourth.folder}
        fourth.kill_worker()
        fourth.kill()
    finally:
        second.kill_worker()
        second.kill()
