"""Curves for tensorboard, Weights & Biases or trackio, through accelerate; a resumed run continues the same curves."""

import dataclasses
import json
from pathlib import Path

from accelerate import Accelerator

from dccd_timm.errors import UserError, logged_failure, one_line
from dccd_timm.recipe import Recipe

_FILE = "tracker.json"


def start_trackers(accelerator: Accelerator, recipe: Recipe, folder: Path) -> None:
    """Start logging, or continue the tracker's run that ``folder`` logged to before.

    Raises:
        UserError: when the tracker cannot be started.
    """
    if recipe.log_with == "none":
        return
    known = _previous_run(folder)
    is_control = (folder.parent / "args.yaml").is_file()
    own_name = f"{folder.parent.name}-{folder.name}" if is_control else folder.name
    options: dict[str, object] = {}
    if recipe.log_with == "wandb":
        options = {"name": own_name, "tags": list(recipe.wandb_tags), "dir": str(folder)}
        if run_id := recipe.wandb_resume_id or known:
            options |= {"id": run_id, "resume": "must" if recipe.wandb_resume_id else "allow"}
    elif recipe.log_with == "trackio":
        options = {"name": known or own_name, "resume": "allow"}
    project = recipe.wandb_project or "dccd-timm"
    if recipe.log_with == "tensorboard":
        accelerator.project_configuration.logging_dir = str(folder)
        project = "tensorboard"
    try:
        accelerator.init_trackers(project, _plain(recipe), {recipe.log_with: options})
    except Exception as error:  # each tracker raises its own kinds
        raise UserError(f"--log-with {recipe.log_with}: {one_line(error)}") from error
    if accelerator.is_main_process and recipe.log_with in ("wandb", "trackio"):
        run = accelerator.get_tracker(recipe.log_with, unwrap=True)
        name = getattr(run, "id", None) if recipe.log_with == "wandb" else getattr(run, "name", None)
        (folder / _FILE).write_text(json.dumps({recipe.log_with: name}))


def stop_trackers(accelerator: Accelerator, folder: Path) -> None:
    """Flush and close the trackers, so that the next run of this process has its own; an error is a warning."""
    for tracker in accelerator.trackers:
        with logged_failure(f"tracker {tracker.name} was not closed", folder):
            tracker.finish()
    accelerator.trackers = []


def _previous_run(folder: Path) -> str | None:
    """The tracker's name or id of this folder's run, if it logged before."""
    try:
        known: dict[str, str] = json.loads((folder / _FILE).read_text())
        return next(iter(known.values()))
    except (OSError, ValueError, StopIteration):
        return None


def _plain(recipe: Recipe) -> dict[str, int | float | str | bool]:
    """The settings as every tracker takes them."""
    settings = dataclasses.asdict(recipe).items()
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings if v is not None}
