"""Real processes: contrast and DIST have the value and the gradients of one process on the concatenated batch."""

import json

import pytest

from tests.conftest import run_python

CASES = 40

# Each case draws shapes, temperatures and an uneven split from its number; every rank runs the same draws.
SCRIPT = """
import copy, gc, json, sys, torch, torch.distributed as dist
from dccd_timm import ChannelContrastiveLoss
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
answers = []
for case in range(int(sys.argv[1])):
    draw = torch.Generator().manual_seed(case)
    pick = lambda low, high: int(torch.randint(low, high + 1, (), generator=draw))
    dtype = torch.bfloat16 if case % 4 == 3 else torch.float32
    wide, narrow, size = pick(2, 12), pick(2, 9), pick(2, 5)
    sizes = [pick(1, 9) for _ in range(world)] if case % 2 else [pick(4, 8)] * world
    scope = "local" if case % 5 == 4 else "global"
    if scope == "local":
        sizes = [max(sizes)] * world
    # inputs of the map have mean 0: else its own sum over positions, which cancels, would lose more than the loss does
    student = torch.randn(sum(sizes), narrow, size, size, generator=draw) * pick(1, 9)
    teacher = torch.randn(sum(sizes), wide, size, size, generator=draw) - pick(-4, 4)
    net = torch.nn.Conv2d(narrow, wide, 1)
    with torch.no_grad():
        net.weight.copy_(torch.randn(net.weight.shape, generator=draw)), net.bias.zero_()
    loss = ChannelContrastiveLoss(
        0.1 * pick(1, 10), ("hard", "soft")[pick(0, 1)], ("symmetric", "student")[pick(0, 1)], scope,
        ("teacher", "student")[pick(0, 1)],
    )
    parts = list(zip(student.split(sizes), teacher.split(sizes)))
    # in one process; local statistics mean the average over the ranks' own losses
    wholes = parts if scope == "local" else [(student, teacher)]

    def alone(net, kind):
        all_ranks, dist.get_world_size = dist.get_world_size, lambda *a: 1
        value = sum(loss(net(s.to(net.weight.dtype)).to(kind), t.to(kind)) for s, t in wholes) / len(wholes)
        dist.get_world_size = all_ranks
        return value.item(), torch.autograd.grad(value, net.weight)[0]

    def together(net, kind):
        ddp, own = torch.nn.parallel.DistributedDataParallel(net), parts[rank]
        value = loss(ddp(own[0].to(net.weight.dtype)).to(kind), own[1].to(kind))
        value.backward()
        if scope == "local":
            dist.all_reduce(value := value.detach() / world)
        return value.item(), net.weight.grad

    def gap(a, b):
        return abs(a[0] - b[0]) / abs(b[0]), ((a[1] - b[1]).norm() / b[1].norm()).item()

    rough = gap(together(copy.deepcopy(net), dtype), one := alone(net, dtype))
    as_float, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double  # the loss computes in float64
    fine = gap(together(copy.deepcopy(net).double(), torch.float64), exact := alone(net.double(), torch.float64))
    torch.Tensor.float = as_float
    answers.append([case, str(dtype), scope, *fine, *rough, gap(one, exact)[1]])
assert dist.get_world_size() == int(sys.argv[2])
if rank == 0:
    json.dump(answers, open(sys.argv[3], "w"))
gc.collect()  # gloo can abort at exit while DDP lives
dist.barrier()
dist.destroy_process_group()
"""


def launched(code, processes, tmp_path, *arguments):
    """What ranks that run ``code`` write to the file named by their last argument."""
    script, written = tmp_path / "ranks.py", tmp_path / "answers.json"
    script.write_text(code)
    done = run_python([script, *arguments, written], processes, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(written.read_text())


@pytest.mark.parametrize("processes", [2, 4])
def test_values_and_gradients_equal_those_of_one_process(processes, tmp_path):
    answers = launched(SCRIPT, processes, tmp_path, CASES, processes)
    assert len(answers) == CASES
    for case, dtype, scope, exact_value, exact_gradient, value, gradient, rounding in answers:
        what = (case, dtype, scope, value, gradient, rounding)
        assert exact_value < 1e-12 and exact_gradient < 1e-12, what
        # a gradient that nearly cancels has lost digits in one process too: it need not be better than that
        assert value < 1e-6 and gradient < max(1e-6, 2 * rounding), what


DIST = """
import gc, json, sys, torch, torch.distributed as dist
from dccd_timm.losses import dist as dist_loss
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
answers = []
torch.Tensor.float = torch.Tensor.double  # the loss computes in float64
for case in range(8):
    draw = torch.Generator().manual_seed(case)
    images, teacher = (torch.randn(4 * world, 6, generator=draw, dtype=torch.float64) * (case + 1) for _ in range(2))
    net = torch.nn.Linear(6, 6).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(6, 6, generator=draw)), net.bias.zero_()
    all_ranks, dist.get_world_size = dist.get_world_size, lambda *a: 1
    alone = dist_loss(net(images), teacher, temperature=case + 1.0)
    wanted = torch.autograd.grad(alone, net.weight)[0]
    dist.get_world_size = all_ranks
    own = slice(4 * rank, 4 * rank + 4)
    ddp = torch.nn.parallel.DistributedDataParallel(net)  # kept: its reducer goes with it
    value = dist_loss(ddp(images[own]), teacher[own], temperature=case + 1.0)
    value.backward()
    dist.all_reduce(value := value.detach() / world)
    answers.append([abs(value - alone).item() / alone.item(), ((net.weight.grad - wanted).norm() / wanted.norm()).item()])
if rank == 0:
    json.dump(answers, open(sys.argv[1], "w"))
del ddp
gc.collect()  # gloo can abort at exit while DDP lives
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("processes", [2, 4])
def test_dist_equals_one_process(processes, tmp_path):
    answers = launched(DIST, processes, tmp_path)
    assert len(answers) == 8
    assert all(value < 1e-9 and gradient < 1e-9 for value, gradient in answers), answers
