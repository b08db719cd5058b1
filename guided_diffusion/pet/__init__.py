"""PET images and their physics. Nothing in here knows about networks."""
