"""What the figures were measured on."""

import os
import platform
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

_LIBRARIES = (
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "psycopg",
    "sqlalchemy",
    "cryptography",
    "orjson",
    "httpx",
    "aiohttp",
    "pydantic",
)


def described() -> dict[str, str]:
    """This function will tell hardware, operating system, Python and libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES if find_spec(name) is not None)
    return {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "OS": f"{_os()}, kernel {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": libraries,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
