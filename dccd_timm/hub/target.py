"""Where a student is pushed to."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dccd_timm.recipe import Hub


@dataclass(frozen=True)
class Target:
    """Where a student goes: repository, visibility of a new one, branch, license, and whether the repository may have
    files that no push of ours wrote."""

    repo_id: str
    public: bool = False
    revision: str | None = None
    license: str | None = None
    overwrite: bool = False

    @classmethod
    def of(cls, hub: Hub) -> Self | None:
        """Where a recipe pushes its student; None without ``--push-to-hub``."""
        if not hub.push_to_hub:
            return None
        return cls(hub.push_to_hub, hub.hub_public, hub.hub_revision, hub.hub_license, hub.hub_overwrite)

    def retry_command(self, run: Path) -> str:
        """The command that pushes a run here, as a shell takes it."""
        words = ["dccd-timm", "push", str(run), self.repo_id, *(["--hub-public"] if self.public else [])]
        words += ["--hub-revision", self.revision] if self.revision else []
        words += ["--hub-license", self.license] if self.license else []
        return shlex.join([*words, *(["--hub-overwrite"] if self.overwrite else [])])
