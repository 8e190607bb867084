"""What a model name means: timm's own ``resnet18.a1_in1k``, ``hf-hub:owner/name@revision`` or ``local-dir:path``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

Source = Literal["timm", "hf-hub", "local-dir"]
_PREFIXES: dict[str, Source] = {"hf-hub": "hf-hub", "hf_hub": "hf-hub", "local-dir": "local-dir"}

_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class ModelName:
    """A model's name in its parts.

    Args:
        source: where the model comes from.
        place: timm's name, the Hub's ``owner/name``, or the folder.
        revision: branch, tag or commit on the Hub, where the name gives one.
    """

    source: Source
    place: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split a name; one without a prefix that timm knows is timm's own, and timm says so if it is not."""
        prefix, _, place = text.partition(":")
        source = _PREFIXES.get(prefix.lower())
        if source is None or not place:
            return cls("timm", text)
        if source == "hf-hub":
            repo_id, _, revision = place.partition("@")
            return cls(source, repo_id, revision or None)
        return cls(source, place)

    @classmethod
    def exported(cls, text: str) -> Self:
        """:meth:`parse`; a run's folder, or the folder of an exported model, needs no prefix."""
        for folder in (Path(text), Path(text) / "best"):
            if (folder / "config.json").is_file():
                return cls("local-dir", str(folder))
        return cls.parse(text)

    @property
    def timm_name(self) -> str:
        """The name as ``timm.create_model`` takes it."""
        name = self.place if self.source == "timm" else f"{self.source}:{self.place}"
        return f"{name}@{self.revision}" if self.revision else name

    @property
    def short(self) -> str:
        """The name without source, owner and folders, for people."""
        last = self.place.rstrip("/").rsplit("/", 1)[-1]
        return f"{last}@{self.revision}" if self.revision else last

    @property
    def brings_weights(self) -> bool:
        """Whether the name stands for one set of weights, so that no checkpoint can be given beside it."""
        return self.source != "timm"

    @property
    def has_weights(self) -> bool:
        """Whether weights come with it beside the architecture; a repository on the Hub is taken to have some."""
        if self.source == "local-dir":
            return any(path.suffix in _WEIGHTS for path in Path(self.place).glob("*"))
        return self.source == "hf-hub"

    @property
    def is_private(self) -> bool:
        """Whether it names a folder of this machine, which others do not have and which says where this one lies."""
        return self.source == "local-dir"
