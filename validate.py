"""Judge a timm model on a data set: see --help, and README.md."""

import sys

try:
    from dccd_timm.cli import validate_main
except KeyboardInterrupt:  # Ctrl-C in the first moments
    sys.exit(130)

if __name__ == "__main__":
    validate_main()
