"""Who used the processor: of processes, and of the services that share one process."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

SAMPLE_EVERY_CPU_S = 0.004
_CLOCK_TICKS_PER_S = 100


def cpu_s(process: psutil.Process) -> float:
    """Returns the CPU seconds that a process and its living children have used."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def rss_mb(processes: Iterable[psutil.Process]) -> float:
    """Returns the resident memory of processes and their children, in MB."""
    total = 0
    for process in processes:
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    return round(total / 1e6, 1)


class ServiceSampler:
    """Divides the CPU time of this process among the services that run in it, by sampling.

    A timer on consumed CPU time interrupts the main thread, where the event loop runs; the innermost frame that lies in
    `services/<name>` or `llmlab` gets the sample. Threads are counted by the service in their name.
    """

    def __init__(self, root: Path, services: Iterable[str]) -> None:
        self._places = {str(root / "services" / name): name for name in services}
        self._client = str(root / "llmlab" / "c")
        self._samples: Counter[str] = Counter()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_EVERY_CPU_S, SAMPLE_EVERY_CPU_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0, 0)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            file = frame.f_code.co_filename
            for place, name in self._places.items():
                if file.startswith(place):
                    self._samples[name] += 1
                    return
            if file.startswith(self._client):
                self._samples["client"] += 1
                return
            frame = frame.f_back
        self._samples["shared"] += 1

    def shares(self) -> dict[str, float]:
        """Returns each part's share of the samples; "shared" is grpc, the event loop and the runtime."""
        total = sum(self._samples.values()) or 1
        return {name: count / total for name, count in sorted(self._samples.items())}


def thread_cpu_s() -> dict[str, float]:
    """Returns the CPU seconds of this process's Python threads, by thread name."""
    used: dict[str, float] = {}
    for thread in threading.enumerate():
        if thread.native_id is None:
            continue
        try:
            fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[thread.name] = used.get(thread.name, 0.0) + (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_S
    return used
