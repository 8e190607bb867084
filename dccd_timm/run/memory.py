"""A training that runs out of memory: which batch would fit, and what it changes."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from functools import cache

import torch
from accelerate import Accelerator
from torch import nn

from dccd_timm.batch import Progress
from dccd_timm.errors import UserError
from dccd_timm.launch.failures import is_out_of_memory, out_of_memory
from dccd_timm.plan.fit import same_update
from dccd_timm.plan.report import readable_size
from dccd_timm.plan.step import Surroundings, step_memory
from dccd_timm.recipe import Recipe
from dccd_timm.run.pieces import Training
from dccd_timm.task.build import term_weights

_logger = logging.getLogger(__name__)

# What fragmentation leaves of the memory that this process has
_USABLE = 0.95


def parts_function(recipe: Recipe, training: Training, where: Surroundings) -> Callable[[int, int], dict[str, int]]:
    """A function of the batch size and the batches of an update: the bytes that a step takes, by part."""

    @cache
    def parts_of(batch_size: int, accumulated: int) -> dict[str, int]:
        smaller = dataclasses.replace(recipe, batch_size=batch_size, grad_accum_steps=accumulated)
        return step_memory(training.task, smaller, training.data_config["input_size"], batch_size, where)

    return parts_of


def naming_what_fits(
    epochs: Iterator[Progress], recipe: Recipe, training: Training, accelerator: Accelerator
) -> Iterator[Progress]:
    """The ``epochs`` of a training.

    Raises:
        UserError: when a step runs out of memory, with a batch that fits.
    """
    try:
        yield from epochs
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _logger.warning("out of memory: looking for a batch that fits")
        try:
            smaller = _smaller_batch(recipe, training, accelerator)
        except Exception:  # whatever a step on fake tensors cannot do: the error itself has to be reported
            smaller = None
        raise UserError(out_of_memory(error, recipe, smaller)) from error


def _smaller_batch(recipe: Recipe, training: Training, accelerator: Accelerator) -> str | None:
    """The flags of a batch that fits and makes the same update, with what it takes and changes; None without one."""
    gpu = accelerator.device.type != "cpu"
    where = Surroundings(gpu, accelerator.num_processes, accelerator.mixed_precision, next_batch=gpu)
    parts_of = parts_function(recipe, training, where)

    def memory_of(batch_size: int, accumulated: int) -> int:
        return sum(parts_of(batch_size, accumulated).values())

    needed, room = memory_of(recipe.batch_size, recipe.grad_accum_steps), _room(accelerator.device)
    limit = needed - 1 if room is None else min(room, needed - 1)
    batch = same_update(memory_of, recipe.batch_size, recipe.grad_accum_steps, limit)
    if batch is None:
        return None
    of = "" if room is None else f" of the {readable_size(room)} that it can have"
    seen = ["the contrast"] if "contrast_loss" in term_weights(training.task) else []
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in training.student.modules()):
        seen.append("BatchNorm")
    changed = f", though {' and '.join(seen)} then see{'s' * (len(seen) == 1)} {batch.size} images at a time"
    return (
        f"a step takes {readable_size(needed)}{of}; --batch-size {batch.size} --grad-accum-steps {batch.accumulated}"
        f" takes {readable_size(batch.memory)} and makes the same update{changed if seen else ''}"
    )


def _room(device: torch.device) -> int | None:
    """The bytes that this process can have for its tensors; None where that is not known."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int((free + torch.cuda.memory_reserved(device)) * _USABLE)
