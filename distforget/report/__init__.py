"""What people look at: progress and verdicts in the terminal, figures, pictures, the page."""
