"""``python -m dccd_timm.report RUN`` is dccd-report."""

from dccd_timm.cli import report_main

if __name__ == "__main__":
    report_main()
