"""HTML reports on a run: projections, a viewer of the volumes, and numbers, in one file that works offline."""
