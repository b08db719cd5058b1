"""The rivals of the paper, on the same data, patches and commands."""
