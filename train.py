"""Train or distil a timm model: see --help, and README.md."""

import sys

try:
    from dccd_timm.cli import train_main
except KeyboardInterrupt:  # Ctrl-C in the first moments
    sys.exit(130)

if __name__ == "__main__":
    train_main()
