"""``python -m dccd_timm.report RUN`` is dccd-timm report."""

from dccd_timm.__main__ import report

if __name__ == "__main__":
    report()
