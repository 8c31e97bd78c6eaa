"""Classifiers of images, how they are trained, and what can be read out of their weights."""
