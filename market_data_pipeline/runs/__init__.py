"""What Dagster knows of the runs, and what the assets of a run share."""
