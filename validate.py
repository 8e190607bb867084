"""Judge a timm model on a data set: see --help, and README.md."""

from dccd_timm.cli import validate_main

if __name__ == "__main__":
    validate_main()
