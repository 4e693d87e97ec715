"""What the benchmarks run on."""

import os
import platform
from pathlib import Path


def _processor() -> str:
    """The processor's name; Linux keeps it where `platform` does not look."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """The thread count that every framework gets."""
    return os.cpu_count() or 1


def describe() -> dict[str, str | int | float]:
    """Processor, threads, memory, system, Python, and the load before anything was started."""
    description: dict[str, str | int | float] = {
        "processor": _processor(),
        "threads": threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        description["memory_gib"] = round(memory / 2**30, 1)
    if hasattr(os, "getloadavg"):
        description["load"] = round(os.getloadavg()[0], 2)
    return description
