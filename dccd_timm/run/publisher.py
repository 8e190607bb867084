"""What a training needs of whoever publishes its student; hub/publisher.py is the one that the programs pass."""

from pathlib import Path
from typing import Protocol

from dccd_timm.report.schema import Report


class Publisher(Protocol):
    """Publishes a run's student. Only the main process calls it."""

    def check(self) -> None:
        """Find out before the training whether the student could be published.

        Raises:
            UserError: when it could not.
        """

    def write_card(self, folder: Path) -> None:
        """Write README.md, the model card, into a finished run's folder."""

    def push_interim(self, folder: Path, report: Report) -> None:
        """Publish the best student of a training that continues; a failure is a warning."""

    def push(self, folder: Path) -> None:
        """Publish a finished run's student, if the recipe asks for it.

        Raises:
            UserError: when that fails; the run's folder is complete.
        """
