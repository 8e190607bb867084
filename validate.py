"""Evaluate a timm model on a data set: see --help, and README.md."""

from dccd_timm.__main__ import validate

if __name__ == "__main__":
    validate()
