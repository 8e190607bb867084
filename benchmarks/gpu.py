"""All questions to one GPU in one command: speed, memory, waiting, exactness, resume; Markdown and JSON.

    python benchmarks/gpu.py                       # under 9 minutes on a GPU; writes output/gpu/report.md and .json
    python benchmarks/gpu.py --only steps memory   # some of its parts
    python benchmarks/gpu.py --tiny                # the same on the CPU with tiny sizes, seconds: does it run?

Each part runs in a process of its own, with a time limit: one that fails or hangs is a line in the report. No network,
no data and no `datasets` are needed: weights are random and images are made here. Where the package is not installed,
its folder on PYTHONPATH is enough, with an unpacked wheel of simplejpeg.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch

from benchmarks import gpu_parts, gpu_runs
from benchmarks.gpu_parts import Report, Sizes

Part = Callable[[Sizes], Report]

# In the order in which they run, with the most seconds that each may take; compiling takes long, so it is last.
PARTS: dict[str, tuple[Part, int]] = {
    "steps": (gpu_parts.steps, 60),
    "terms": (gpu_parts.terms, 30),
    "share": (gpu_parts.share_of_peak, 30),
    "memory": (gpu_parts.memory, 60),
    "waiting": (gpu_parts.waiting, 40),
    "numbers": (gpu_parts.numbers, 30),
    "scaler": (gpu_runs.scaler, 30),
    "loader": (gpu_runs.loader, 70),
    "resume": (gpu_runs.resume, 120),
    "compiled": (gpu_parts.compiled_steps, 150),
}
# Seconds of the whole on a GPU: a part that would begin later is left out.
LIMIT = 530


def run_part(part: Part, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """What a part reports, from a process of its own: rows, checks and notes, or an error; and its seconds."""
    context, began = multiprocessing.get_context("fork"), time.perf_counter()
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(part, sizes, writing))
    process.start()
    assert process.pid is not None
    writing.close()
    found: dict[str, Any] = {"error": f"not done after {seconds:.0f} s"}
    if reading.poll(seconds):
        try:
            found = reading.recv()
        except EOFError:
            process.join()
            found = {"error": f"its process ended with code {process.exitcode}"}
    else:
        os.killpg(process.pid, signal.SIGKILL)  # what it has started too
    process.join()
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


def _send(part: Part, sizes: Sizes, pipe: Connection) -> None:
    os.setsid()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            torch.manual_seed(0)
            pipe.send(part(sizes)._asdict())
        except Exception as error:  # a part fails by itself
            traceback.print_exc()
            pipe.send({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})


def surroundings(sizes: Sizes) -> dict[str, str]:
    """What is measured on, empty without a GPU: asked in a process of its own, since this one may not begin CUDA."""

    def ask(_: Sizes) -> Report:
        if sizes.device == "cuda" and not torch.cuda.is_available():
            return Report([])
        name = torch.cuda.get_device_name() if sizes.device == "cuda" else platform.processor() or platform.machine()
        memory = torch.cuda.get_device_properties(0).total_memory if sizes.device == "cuda" else 0
        return Report([{"device": name, "memory, GiB": round(memory / 2**30, 1), "CPU cores": os.cpu_count()}])

    rows = run_part(ask, sizes, 60).get("rows")
    if not rows:
        return {}
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    return {**rows[0], **versions, "CUDA": torch.version.cuda or "none"}


def markdown(where: dict[str, str], parts: dict[str, dict[str, Any]]) -> str:
    """The report for people: for each part its checks, its table and its notes."""
    lines = ["# One GPU", "", ", ".join(f"{name} {value}" for name, value in where.items()), ""]
    for name, found in parts.items():
        lines += [f"## {name} ({found['seconds']} s)", ""]
        if "error" in found:
            lines += [f"**FAILED**: {found['error']}", ""]
            continue
        lines += [f"- {'passed' if passed else '**MISSED**'}: {what}" for what, passed in found["checks"].items()]
        lines += [f"- {note}" for note in found["notes"]]
        if found["rows"]:
            names = list(dict.fromkeys(column for row in found["rows"] for column in row))
            lines += ["", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
            lines += [f"| {' | '.join(_cell(row.get(column)) for column in names)} |" for row in found["rows"]]
        lines += [""]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the parts and write both reports; ends with 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--output", type=Path, default=Path("output/gpu"), help="folder of the reports")
    args = parser.parse_args()
    # parts are forked, and a process that has begun to use CUDA cannot be: so torch asks the driver's library
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # for deterministic kernels
    sys.modules["datasets"] = None  # type: ignore[assignment]  # what imports it fails, as where it is missing
    began, parts = time.perf_counter(), dict[str, dict[str, Any]]()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (gpu_parts.TINY if args.tiny else gpu_parts.GPU)._replace(folder=folder)
        where = surroundings(sizes)
        if not where:
            parser.error("there is no GPU here: --tiny runs the same on the CPU")
        for name in args.only:
            part, seconds = PARTS[name]
            left = LIMIT - (time.perf_counter() - began)
            if left < 10:
                parts[name] = {"error": "no time was left", "seconds": 0}
                continue
            parts[name] = run_part(part, sizes, min(seconds, left))
            print(
                f"{name}: {parts[name].get('error', 'done')}, {parts[name]['seconds']} s", file=sys.stderr, flush=True
            )
            # after each part: what is known outlives whatever comes
            (args.output / "report.json").write_text(json.dumps({"where": where, "parts": parts}, indent=1))
            (args.output / "report.md").write_text(markdown(where, parts))
    print(markdown(where, parts))
    sys.exit(any("error" in found for found in parts.values()))


if __name__ == "__main__":
    main()
