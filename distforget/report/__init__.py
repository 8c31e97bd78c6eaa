"""Everything people look at: terminal output, figures, pictures and the page."""
