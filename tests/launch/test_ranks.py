"""One rank's error ends all ranks; with several processes see tests/processes."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch.distributed as dist

from dccd_timm.errors import UserError
from dccd_timm.launch.ranks import all_together

RANK = """
import sys, time
from dccd_timm.errors import UserError
from dccd_timm.launch.ranks import all_together

def explain(error):
    return str(error) if isinstance(error, (UserError, OSError)) else None

with all_together(explain, lambda: print("cleaned up", file=sys.stderr, flush=True)):
    {body}
"""


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)


def test_alone_an_explained_error_is_a_users_mistake_and_a_bug_keeps_its_kind():
    with pytest.raises(UserError, match="the disk is full") as caught, all_together(lambda error: "the disk is full"):
        raise OSError("No space left")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(KeyError), all_together(lambda error: None):
        raise KeyError("name")
    with pytest.raises(UserError, match="as it was"), all_together(str):
        raise UserError("as it was")


@pytest.mark.parametrize("error", [UserError("no such split"), KeyError("name"), KeyboardInterrupt(), SystemExit(75)])
def test_what_ends_a_rank_early_cleans_up_once(error):
    calls = []
    with pytest.raises(type(error)), all_together(lambda error: None, lambda: calls.append("early")):
        raise error
    with all_together(lambda error: None, lambda: calls.append("at its end")):
        pass
    assert calls == ["early"]


def start(body, rank, world, port):
    env = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-c", RANK.format(body=body)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "body", "line"),
    [
        (0, "raise UserError('no such split')", "error: no such split"),
        (1, "raise OSError('No space left')", "error: rank 1: No space left"),
        (1, "raise KeyError('name')", "error: rank 1: KeyError: 'name'"),
    ],
)
def test_a_rank_that_waits_for_another_ends_with_its_cause(failing, body, line):
    """The one that waits sits in no collective here, but sleeps as long as a hung one would."""
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30))
    ranks = [start(body if rank == failing else "time.sleep(120)", rank, 2, store.port) for rank in range(2)]
    errors = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert [text for text in errors[0].splitlines() if text.startswith("error: ")] == [line]
    assert not [text for text in errors[1].splitlines() if text.startswith("error: ")]  # said once, by rank 0
    assert ("Traceback" in errors[failing]) == ("KeyError" in body)  # a bug keeps its traceback
    assert all("cleaned up" in text for text in errors)


WAITS = """
    from datetime import timedelta
    import torch, torch.distributed as dist
    dist.init_process_group("gloo", timeout=timedelta(seconds=3))
    def stuck(): time.sleep(120)
    def collective(): dist.all_reduce(torch.zeros(1))
    (stuck if dist.get_rank() == {stuck} else collective)()
"""


@pytest.mark.slow
@pytest.mark.parametrize("stuck", [0, 1])
def test_a_rank_that_waits_too_long_says_where_each_one_stands(stuck, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # the store is a launcher's
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30))
    ranks = [start(WAITS.format(stuck=stuck).strip(), rank, 2, store.port) for rank in range(2)]
    errors = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], errors
    places = ["rank 0 waits in all_reduce", "rank 1 is in stuck"]
    if stuck == 0:
        places = ["rank 0 is in stuck", "rank 1 waits in all_reduce"]
    line = next(text for text in errors[0].splitlines() if text.startswith("error: "))
    assert "longer than --dist-timeout" in line and all(place in line for place in places)
