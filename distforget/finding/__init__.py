"""Finds samples of some data that are similar to given ones, by meaning and by wording."""
