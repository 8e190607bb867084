"""What a run reports: report.json, pictures, the console, summary.csv."""
