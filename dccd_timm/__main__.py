"""``python -m dccd_timm`` is dccd-timm."""

from dccd_timm.cli import main

if __name__ == "__main__":
    main()
