"""PET images and their physics. Nothing in here depends on networks."""
