"""Time and memory that the software takes on this machine, measured in one run; one file per section of the report."""
