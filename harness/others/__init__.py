"""Answers that others' systems left, scored again: a reader a format, one plain table of answers, one scorer.

``docs/rescore.md`` describes the formats. Nothing here imports torch, and no text of an answer or of a benchmark is
printed.
"""
