"""Many short trainings on two ranks, through every loader path, each third one resumed: does one stand still or fail?

    python benchmarks/ranks.py --runs 300

A run that has not ended after --timeout seconds is stopped, and the benchmark ends with the stacks of its threads. It
needs `pip install -e ".[test]"`.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.conftest import write_folders, write_parquet  # noqa: E402
from tests.fakes.forks import Forks  # noqa: E402

NETWORK = (
    "--model resnetv2_18 --model-kwargs layers=(1,1,1) channels=(8,16,24) stem_chs=8 --img-size 32 -b 8 --lr 0.05"
    " --warmup-epochs 0"
)
WAYS = (
    "",
    "--dccd-views 2",
    "--dccd-views 3 --dccd-view-aug near",
    "--mixup 0.2 --model-ema",
    "--pil-views",
    "--recovery-interval 1",
    "--grad-accum-steps 2",
    "--no-prefetcher",
)


def sources(folder: Path) -> list[list[str]]:
    """Flags of each source of images, made in ``folder``."""
    folders, parquet = write_folders(folder / "folders", (16, 8)), write_parquet(folder / "parquet")
    return [
        ["--data-dir", str(folders), "--val-split", "validation"],
        ["--dataset", f"hfids/{folders}", "--val-split", "validation"],
        ["--dataset", f"hfids/{parquet}", "--val-split", "test"],
    ]


def train(forks: Forks, arguments: list[str], timeout: int) -> None:
    """One training on two ranks; ends the program with what it printed unless it ends well."""
    try:
        done = forks.run([str(ROOT / "train.py"), *arguments], 2, ROOT, {}, timeout)
    except subprocess.TimeoutExpired as still:
        sys.exit(f"stands still after {timeout} s: {' '.join(arguments)}\n{still.stderr}")
    if done.returncode:
        sys.exit(f"code {done.returncode}: {' '.join(arguments)}\n{done.stderr}")


def main() -> None:
    """Run the program; it exits with 1 at the first run that stands still or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--timeout", type=int, default=150, help="seconds that a run may take")
    options = parser.parse_args()
    forks, began, resumed = Forks(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        cases = itertools.cycle(itertools.product(sources(Path(folder)), WAYS, "123"))
        for number, (source, way, workers) in tqdm(
            zip(range(options.runs), cases, strict=False), total=options.runs, disable=None
        ):
            arguments = [
                *source, *NETWORK.split(), *way.split(), "-j", workers, "--output", folder, "--experiment", f"{number}"
            ]  # fmt: skip
            train(forks, [*arguments, "--epochs", "1"], options.timeout)
            if number % 3 == 0:
                train(forks, [*arguments, "--epochs", "2", "--resume", "auto"], options.timeout)
                resumed += 1
    print(f"{options.runs} trainings on 2 ranks and {resumed} resumes ended in {time.monotonic() - began:.0f} s")
    forks.stop()


if __name__ == "__main__":
    main()
