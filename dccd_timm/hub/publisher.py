"""Publishes a training's student on the Hugging Face Hub, as its recipe says."""

import json
from pathlib import Path
from typing import Any

from dccd_timm.atomic import write_text
from dccd_timm.hub import push as hub
from dccd_timm.hub.card import Card
from dccd_timm.recipe import Recipe


class HubPublisher:
    """The publisher of a recipe; without ``--push-to-hub`` it writes the card and pushes nothing."""

    def __init__(self, recipe: Recipe) -> None:
        self.target = hub.Target.of(recipe)

    def check(self) -> None:
        """Raise a UserError when the recipe's repository cannot be pushed to."""
        if self.target:
            hub.check(self.target)

    def write_card(self, folder: Path) -> None:
        """Write README.md into a finished run's folder."""
        report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
        write_text(folder / "README.md", Card(folder, license=report.get("license")).text())

    def push_interim(self, folder: Path, report: dict[str, Any]) -> None:
        """Push the best student of a run that continues; a failure is a warning."""
        if self.target:
            hub.push_so_far(folder, self.target, report)

    def push(self, folder: Path) -> None:
        """Push a finished run's student, if the recipe asks for it."""
        if self.target:
            hub.push(folder, self.target)
