"""Methods x seeds on recipes/quickstart.yaml: last-epoch top-1, mean and spread, paired with two-view KD.

    python benchmarks/quickstart.py --out output/quickstart --seeds 42 43 44

All methods see the same images, views and steps. Finished runs are kept, so a stopped comparison goes on.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KD = "KD"
METHODS = {
    "none": ["--kd-distill-type", "none"],
    KD: ["--kd-distill-type", "logit"],
    "feature": ["--kd-distill-type", "feature"],
    "DCCD": [],
    "contrast only": ["--dccd-difference-weight", "0"],
    "difference only": ["--dccd-contrast-weight", "0"],
}


def run(out: Path, method: str, seed: int, flags: list[str], extra: list[str], threads: int) -> tuple[str, int, dict]:
    """Train one student, unless its report is there already; returns last-epoch numbers."""
    folder = out / f"{method.replace(' ', '-')}-{seed}"
    if not (folder / "report" / "report.json").is_file():
        words = ["-c", "recipes/quickstart.yaml", "--dccd-control", "", "--seed", str(seed), *flags, *extra]
        command = [sys.executable, "train.py", *words, "--output", str(out), "--experiment", folder.name]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    with (folder / "summary.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    report = json.loads((folder / "report" / "report.json").read_text())
    rank = report["redundancy"]["student"]["effective_rank"]
    numbers = {"top1": float(last["eval_top1"]), "rank": rank, "seconds": report["seconds"]}
    return method, seed, numbers | {"agreement": report["student"].get("agreement")}


def table(results: dict[str, dict[int, dict]]) -> str:
    """Markdown: a row a method."""
    lines = [
        "| method | top-1 (%) | single seeds | minus KD | agreement (%) | effective rank | seconds |",
        "|" + "---|" * 7,
    ]
    for method, runs in results.items():
        top1 = [runs[s]["top1"] for s in sorted(runs)]
        spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        gains = [runs[s]["top1"] - results[KD][s]["top1"] for s in sorted(runs) if s in results.get(KD, {})]
        gain = (
            f"{statistics.mean(gains):+.2f} ({', '.join(f'{g:+.2f}' for g in gains)})" if gains and method != KD else ""
        )
        means = [statistics.mean(r[k] for r in runs.values()) for k in ("agreement", "rank", "seconds")]
        lines.append(
            f"| {method} | {statistics.mean(top1):.2f}{spread} | {', '.join(f'{t:.2f}' for t in top1)} | {gain} |"
            f" {means[0]:.2f} | {means[1]:.2f} | {means[2]:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("output/quickstart"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--methods", nargs="+", default=["none", KD, "DCCD"], choices=METHODS)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each run")
    parser.add_argument(
        "--also",
        nargs="*",
        default=[],
        metavar="NAME:FLAGS",
        help="more methods, e.g. 'soft:--dccd-contrast-targets soft'",
    )
    parser.add_argument("--flags", default="", help="flags for all runs, one string")
    args = parser.parse_args()
    extra = args.flags.split()
    methods = {name: METHODS[name] for name in args.methods}
    methods |= {name: flags.split() for name, _, flags in (word.partition(":") for word in args.also)}
    jobs = [(m, s) for s in args.seeds for m in methods]
    results: dict[str, dict[int, dict]] = {name: {} for name in methods}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(run, args.out.resolve(), m, s, methods[m], extra, args.threads) for m, s in jobs]
        for done in concurrent.futures.as_completed(waiting):
            method, seed, numbers = done.result()
            results[method][seed] = numbers
            print(f"{method} seed {seed}: {numbers}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
