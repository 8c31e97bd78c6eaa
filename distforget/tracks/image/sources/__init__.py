"""Where images come from: each source reads a `Pool`, checked and ready to be drawn from."""
