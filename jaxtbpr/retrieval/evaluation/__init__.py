"""Features of whole sets, their ranking and its metrics."""
