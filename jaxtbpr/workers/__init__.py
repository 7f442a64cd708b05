"""Models in worker processes with torch: requests, supervision, and use of their answers."""
