"""From scores to comparisons to verdicts: tables in, tables out, for every track alike."""
