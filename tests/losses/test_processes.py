"""Two real processes: the contrast term has the gradients of one process on the concatenated batch."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dccd_timm import ChannelContrastiveLoss
from tests.conftest import ROOT

SCRIPT = """
import gc, json, sys, torch, torch.distributed as dist
from dccd_timm import ChannelContrastiveLoss
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, split, targets = dist.get_rank(), int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
student, teacher = torch.randn(12, 5, 3, 3) + 4, torch.randn(12, 6, 3, 3) - 2
net = torch.nn.Conv2d(5, 6, 1)
ddp = torch.nn.parallel.DistributedDataParallel(net)
part = slice(0, split) if rank == 0 else slice(split, 12)
loss = ChannelContrastiveLoss(0.2, targets=targets)(ddp(student[part]), teacher[part])
loss.backward()
assert dist.get_world_size() == 2
with open(f"{sys.argv[3]}/{rank}.json", "w") as file:
    json.dump([loss.item(), net.weight.grad.flatten().tolist()], file)
del ddp, loss  # gloo can abort at exit while DDP lives
gc.collect()
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("split", [6, 4])
def test_gradients_equal_those_of_one_process(split, targets, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(split), targets, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    torch.manual_seed(0)
    student, teacher = torch.randn(12, 5, 3, 3) + 4, torch.randn(12, 6, 3, 3) - 2
    net = torch.nn.Conv2d(5, 6, 1)
    loss = ChannelContrastiveLoss(0.2, targets=targets)(net(student), teacher)
    loss.backward()
    for value, grad in answers:
        assert value == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(torch.tensor(grad), net.weight.grad.flatten(), rtol=1e-4, atol=1e-6)
