"""Files of PET images: a reader or writer each."""
