"""Turns scores into comparisons and verdicts: functions from tables to tables, for both tracks."""
