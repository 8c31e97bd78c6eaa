"""Making similar samples; knows pixels and no dataset."""
