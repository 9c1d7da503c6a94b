"""Wall time and peak memory of a piece of work: the two helpers the benchmarks share.

Run as a script it is the subprocess of `peak_mib`: `python measure.py FILE FUNCTION KWARGS_AS_JSON`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")


def median_seconds(fn: Callable[[], Any], repeats: int = 5, *, warm_up: int = 1) -> float:
    """Return the median wall time of `repeats` calls of `fn`.

    Parameters
    ----------
    fn : callable
        Called without arguments; what it returns is dropped.
    repeats : int
        At least 1.
    warm_up : int
        Calls before the first that counts.

    Returns
    -------
    float
        Seconds.
    """
    for _ in range(warm_up):
        fn()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_mib(prepare: Callable[..., Callable[[], Any]], **kwargs: Any) -> float:
    """Return how far one piece of work pushes a fresh process's resident memory above where it stood.

    A subprocess imports the file that defines `prepare` and calls `prepare(**kwargs)`, which makes the inputs
    and returns the work as a callable; it notes its memory and runs the work once.

    Parameters
    ----------
    prepare : callable
        A function at the top level of a file; what it builds before returning is not counted.
    **kwargs
        JSON-able arguments of `prepare`.

    Returns
    -------
    float
        MiB at the highest point less the MiB held before the work. On Linux the high-water mark is reset
        before the work; elsewhere it includes the making of the inputs, so the answer is a lower bound.
    """
    command = [sys.executable, __file__, inspect.getfile(prepare), prepare.__name__, json.dumps(kwargs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def _high_water_mib() -> float:
    """Return the process's highest resident memory so far."""
    if (PROC / "status").exists():
        # Not getrusage: its mark survives exec, so a large parent would hide what a small child does.
        fields = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _run_measured(file: str, function: str, kwargs: dict[str, Any]) -> float:
    """Prepare, run and measure in this process."""
    spec = importlib.util.spec_from_file_location("measured", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    work = getattr(module, function)(**kwargs)
    if (PROC / "clear_refs").exists():
        (PROC / "clear_refs").write_text("5")  # 5: lower the high-water mark to what is resident now
    before = _high_water_mib()
    work()
    return _high_water_mib() - before


if __name__ == "__main__":
    print(_run_measured(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
