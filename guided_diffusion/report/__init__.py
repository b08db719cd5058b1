"""Pages about one run: projections, a viewer of the volumes, and numbers, in one HTML file that needs no network."""
