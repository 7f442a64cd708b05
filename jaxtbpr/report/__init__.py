"""Report: the HTML page of a run, and the table printed at its end."""
