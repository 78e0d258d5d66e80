"""Time and peak memory of competing calls: in turn, in one process, on the same inputs."""

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """Best seconds of several runs and the extra bytes at the peak of one run."""

    seconds: float
    peak: float


def status(field: str) -> int:
    """Bytes that the kernel reports for this process, e.g. VmRSS or its high-water mark VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> float:
    """Memory that ``call`` needs beyond what was there before, at its peak."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    call()  # what the first call loads is not its memory
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be reused unseen
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = status("VmRSS")
    call()
    return max(status("VmHWM") - before, 1)


def compare(
    calls: dict[str, Callable[[], object]], repeats: int = 5, device: str = "cpu"
) -> dict[str, Cost]:
    """Best time of each call, taken in turn so that a busy neighbour hits all alike."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    costs = {name: Cost(float("inf"), peak_bytes(call, device)) for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            costs[name].seconds = min(costs[name].seconds, time.perf_counter() - start)
    return costs


def machine(device: str = "cpu") -> str:
    """What the numbers were measured on, in one line."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    where = name if device == "cuda" else f"{name}, {torch.get_num_threads()} threads"
    return f"{where}; torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The processor's model and its widest vector unit."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((x.split(":")[1].strip() for x in info.splitlines() if "model name" in x), "CPU")
    vectors = "AVX-512" if "avx512f" in info else "AVX2" if "avx2" in info else "no AVX2"
    return f"{model} ({vectors})"


def save(name: str, title: str, header: list[str], rows: list[list[str]], device: str) -> None:
    """Print a Markdown table and keep it under ``benchmarks/results``."""
    lines = [f"# {title}", "", machine(device), ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    print(text)
    suffix = "-cuda" if device == "cuda" else ""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}{suffix}.md").write_text(text)


def mib(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / 2**20:.0f}"
