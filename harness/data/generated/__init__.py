"""Invented rows in the official schemas of LoCoMo, HotpotQA and QASPER, from a seed and a task's knobs.

They stand in where neither data nor network is at hand, and go through the readers of the official files. Every
answer stands in the history, or follows from it as the benchmark's category has it; the pools of words are wide, so
that a guess without the history is seldom right.
"""
