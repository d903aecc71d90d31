"""First step of `make run`, `make test` and `make check`: find a good Python, make .venv, install, go on in there.

Runs before anything is installed: standard library only, and only syntax that old Pythons parse, so that a Python that is
too old gets one sentence instead of a SyntaxError.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig

OLDEST = (3, 11)
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(PROJECT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.json")
INSTALLING = os.path.join(VENV, "installing")
# (lock file, further arguments of pip, what it takes on the disk in MB)
SERVER = ("requirements.txt", (), 320)
LOCAL = ("requirements-local.txt", ("--no-deps",), 510)
TEST = ("requirements-test.txt", (), 360)
NEEDED = {"run": (SERVER, LOCAL), "test": (SERVER, LOCAL, TEST), "check": (SERVER, LOCAL, TEST)}


class Refusal(Exception):
    """One sentence that says what is wrong, and the remedy."""


def main(arguments: "list[str]") -> None:
    """Prepare the machine and replace this process by the real command."""
    command = arguments[0] if arguments else ""
    try:
        if command not in NEEDED:
            raise Refusal("Unknown command '{}'. Use run, test or check.".format(command))
        use_good_python(arguments)
        check_platform()
        os.chdir(PROJECT)
        install(command)
    except Refusal as refusal:
        sys.exit(str(refusal))
    except OSError as error:
        sys.exit(explain(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Run it again to go on.\n")
        sys.exit(130)
    os.execv(VENV_PYTHON, [VENV_PYTHON, "-m", "chatbot_site.local", *arguments])


def use_good_python(arguments: "list[str]", version: "tuple[int, ...]" = tuple(sys.version_info[:3])) -> None:
    """Go on in a newer Python of this machine when `version` is too old; none: refuse."""
    if version >= OLDEST:
        return
    for minor in range(OLDEST[1] + 3, OLDEST[1] - 1, -1):
        python = shutil.which("python3.{}".format(minor))
        if python and subprocess.call([python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            os.execv(python, [python, os.path.abspath(__file__), *arguments])
    raise Refusal(
        "Python {}.{} or newer is needed, and {} is {}. Install a newer one (Debian, Ubuntu: apt-get install python3 python3-venv; "
        "macOS: brew install python), then name it: make {} PYTHON=python3.13".format(
            OLDEST[0], OLDEST[1], sys.executable, ".".join(map(str, version)), arguments[0]
        )
    )


def check_platform(system: str = sys.platform, machine: str = "", abi: str = str(sysconfig.get_config_var("SOABI"))) -> None:
    """Refuse platforms that the embedded PostgreSQL, Valkey and demo model are not built for."""
    machine = (machine or platform.machine()).lower()
    remedy = "Use Linux with glibc (Debian, Ubuntu, Fedora) or macOS, on x86-64 or ARM64"
    if system.startswith(("win", "cygwin", "msys")):
        raise Refusal("Windows itself is not supported. Use WSL 2 (wsl --install), and run make in there.")
    if not system.startswith(("linux", "darwin")):
        raise Refusal("The platform {} is not supported. {}.".format(system, remedy))
    if "musl" in abi:
        raise Refusal("This Python is built for musl (Alpine), for which no embedded services exist. {}.".format(remedy))
    if machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise Refusal("The processor {} is not supported. {}.".format(machine, remedy))


def install(command: str) -> None:
    """Bring .venv up to date with the lock files; nothing is done when they are the same as last time."""
    if os.path.exists(INSTALLING):
        print("The last installation was interrupted; starting it afresh.")
        shutil.rmtree(VENV)
    usable = venv_works()
    installed = read_stamp() if usable else {}
    due = [lock for lock in NEEDED[command] if installed.get(lock[0]) != digest(lock[0])]
    if usable and not due:
        return
    if command == "run":
        check_port()
    check_space(sum(size for name, _, size in due if name not in installed))
    if not usable:
        make_venv()
    with open(INSTALLING, "w"):
        pass
    for name, options, _ in due:
        pip_install(name, options)
        installed[name] = digest(name)
    with open(STAMP, "w") as stamp:
        json.dump(installed, stamp)
    os.remove(INSTALLING)


def venv_works() -> bool:
    """Tell whether .venv holds a Python that starts, is new enough and has pip (its base may have been removed since)."""
    try:
        probe = "import sys, pip; sys.exit(sys.version_info < {!r})".format(OLDEST)
        return subprocess.call([VENV_PYTHON, "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def make_venv() -> None:
    """Create .venv, with pip."""
    try:
        import ensurepip  # noqa: F401 - Debian leaves it out of its python3 package
        import venv
    except ImportError:
        raise Refusal(
            "This Python ({}) cannot make virtual environments. Install what is missing (Debian, Ubuntu: apt-get install "
            "python{}.{}-venv), then run it again.".format(sys.executable, *sys.version_info[:2])
        ) from None
    print("Making a virtual environment in .venv")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Refusal(
            "Making .venv failed: {}. Remove .venv and try again, or use another Python: make run PYTHON=python3.13".format(error)
        ) from None


def pip_install(name: str, options: "tuple[str, ...]") -> None:
    """Install one lock file, with a line of progress for each few packages."""
    with open(name) as lock:
        total = sum(1 for line in lock if "==" in line and not line.startswith((" ", "#")))
    print("Installing {} packages of {}; the first time this downloads them, which takes a few minutes".format(total, name))
    command = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--require-hashes", "--only-binary", ":all:", "-r", name, *options]
    environment = dict(os.environ, PIP_USER="0", PIP_NO_COLOR="1", PYTHONUNBUFFERED="1")
    # The versions of a lock file are one set: pip need not ask which others would fit.
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, universal_newlines=True)
    said = []
    seen = 0
    assert pip.stdout is not None
    try:
        for line in pip.stdout:
            said.append(line)
            if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: ")):
                seen += 1
                if seen % 10 == 0:
                    print("  {} of {} packages".format(seen, total))
            elif line.startswith("Installing collected"):
                print("  unpacking")
            sys.stdout.flush()
        pip.wait()
    finally:
        if pip.poll() is None:
            pip.terminate()
            pip.wait()
    if pip.returncode:
        sys.stderr.write("".join(said[-12:]))
        raise Refusal(explain_pip("".join(said), name))


def explain_pip(output: str, name: str) -> str:
    """Return the sentence for a failure of pip that printed `output`."""
    if "No space left on device" in output:
        return "The disk is full. Free about 1 GB, then run it again."
    if "DO NOT MATCH THE HASHES" in output:
        return "A package's contents differ from the hash in {}. Try again, or check the package index that pip uses.".format(name)
    if "No matching distribution" in output and "Retrying" not in output and "from versions: none" not in output:
        return (
            "A package of {} is not built for this platform or Python ({}, Python {}). Use Linux with glibc 2.28 or newer, or macOS, and a "
            "Python between 3.11 and 3.14: make run PYTHON=python3.13".format(name, platform.platform(), platform.python_version())
        )
    return "Installing the packages of {} failed (above is why). Check the network, then run it again.".format(name)


def check_port() -> None:
    """Refuse a busy port before the minutes of an installation; the supervisor asks again, and better."""
    port = os.environ.get("PORT") or "8000"
    if not port.isdigit():
        return  # the settings explain what is wrong with it
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OverflowError:
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return
            raise Refusal("Port {} is in use. Stop what uses it, or choose another: make run PORT=8001".format(port)) from None


def check_space(needed_mb: int) -> None:
    """Refuse a disk that the packages do not fit on."""
    free_mb = shutil.disk_usage(PROJECT).free // 10**6
    if free_mb < needed_mb:
        raise Refusal(
            "The disk of {} has {} MB free, and the packages need about {} MB. Free some space, then run it again.".format(
                PROJECT, free_mb, needed_mb
            )
        )


def explain(error: OSError) -> str:
    """Return the sentence for a file operation that failed."""
    if error.errno == errno.ENOSPC:
        return "The disk of {} is full. Free about 1 GB, then run it again.".format(PROJECT)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "{} cannot be written. Run it as the user who owns {}, or copy the project to a folder of your own.".format(
            error.filename or VENV, PROJECT
        )
    return "{}: {}. Remove .venv and run it again.".format(error.filename or VENV, error.strerror or error)


def read_stamp() -> "dict[str, str]":
    """Return the digest of each lock file as it was when it was installed."""
    try:
        with open(STAMP) as stamp:
            return dict(json.load(stamp))
    except (OSError, ValueError):
        return {}


def digest(name: str) -> str:
    """Return the SHA-256 of a lock file."""
    with open(os.path.join(PROJECT, name), "rb") as lock:
        return hashlib.sha256(lock.read()).hexdigest()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its module names are not meant to be found from here
    main(sys.argv[1:])
