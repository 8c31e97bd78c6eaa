"""Runs the steps of a plan with Ray and DeepSpeed; only this package imports them."""
