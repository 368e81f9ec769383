"""What a run leaves: records, report.json, metrics.jsonl, the run directory."""
