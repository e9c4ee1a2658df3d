"""From records to what people read: tables, one figure, one cell on the screen, the record's own documentation.

Everything here is a pure function of the experiment, its records and the paper's printed numbers.
"""
