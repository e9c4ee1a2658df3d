"""Measurements side by side: commands that print a ratio or a time beside the goal it is held against."""
