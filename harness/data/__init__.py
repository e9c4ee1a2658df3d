"""Data: one reader for official files and hub rows, and a generator of the same schemas."""
