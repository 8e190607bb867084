"""One process with the real clients that does job after job: huggingface_hub reads its variables once, at import."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


class Client:
    """Runs programs of the package in a process of its own.

    Args:
        environment: variables of that process.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.model_hub.client"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.jobs, self.answers = self.process.stdin, self.process.stdout

    def do(self, code: str, token: str | None = None, **values: object) -> "Done":
        """Run a piece of code; its ``values`` and what it prints, with the exit code when it ends the program."""
        job = {"code": code, "token": token or "", "values": {k: str(v) for k, v in values.items()}}
        self.jobs.write(json.dumps(job) + "\n")
        self.jobs.flush()
        return Done(**json.loads(self.answers.readline()))

    def push(self, *words: object, token: str | None = None) -> "Done":
        """``dccd-timm push`` with these words."""
        return self.do(
            "from dccd_timm.cli import push_main; push_main(words.split(' '))", token, words=" ".join(map(str, words))
        )

    def pull(self, *words: object, token: str | None = None) -> "Done":
        """``dccd-timm pull`` with these words."""
        return self.do(
            "from dccd_timm.cli import main; main(['pull', *words.split(' ')])", token, words=" ".join(map(str, words))
        )

    def stop(self) -> None:
        self.jobs.close()
        self.process.wait(10)


class Done:
    """How a job ended: exit code or error, and all that it printed."""

    def __init__(self, code: int | str | None, text: str) -> None:
        self.code, self.text = code, text


def assert_failed(done: Done, *words: str) -> None:
    """Code 2 and one line with these words, no traceback."""
    assert done.code == 2, done.text
    errors = [line for line in done.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.text
    for word in words:
        assert word in errors[0], errors[0]


def serve() -> None:
    """Do the jobs that come, one a line."""
    import logging
    import time

    import dccd_timm.models.load
    import dccd_timm.network

    time.sleep = lambda seconds: None  # no pauses between tries
    dccd_timm.network.TIMEOUTS = (1.0, 1.0, 1.0, 1.0)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        job, said = json.loads(line), io.StringIO()
        code: int | str | None = 0
        os.environ["HF_TOKEN"] = job["token"]
        dccd_timm.models.load._ask_hub.cache_clear()
        logging.getLogger().handlers.clear()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                exec(job["code"], {**job["values"]})
            except SystemExit as end:
                code = end.code
            except Exception as error:
                code = f"{type(error).__name__}: {error}"
        print(json.dumps({"code": code, "text": said.getvalue()}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
