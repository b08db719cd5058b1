"""Files of PET images: one reader or writer per file."""
