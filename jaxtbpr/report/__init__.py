"""Report: the page on which a run can be looked at, and the table printed at its end."""
