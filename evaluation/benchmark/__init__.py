"""What the software costs on this machine, measured side by side in one run: a file per section of the report."""
