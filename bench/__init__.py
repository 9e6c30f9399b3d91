"""Speed, measured against a reference in the same run. ``make bench`` writes RESULTS.md."""
