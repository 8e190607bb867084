"""The type checker of shapes in tests: an int passes for a float, as in every call that people type."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
