"""Images: classifiers, their training, and what can be read back out of their weights."""
