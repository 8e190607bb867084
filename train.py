"""Train or distil a timm model: see --help, and README.md."""

from dccd_timm.__main__ import train

if __name__ == "__main__":
    train()
