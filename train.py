"""Train or distil a timm model: see --help, and README.md."""

from dccd_timm.cli import train_main

if __name__ == "__main__":
    train_main()
