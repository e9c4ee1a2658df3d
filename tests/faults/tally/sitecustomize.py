"""Loaded by every Python process of a pipeline under test; nothing of the harness knows of it.

``DELTA_MEM_TALLY`` names a file to which a line is appended each time that a worker begins to answer an episode: the
cell's folder and the episode. ``DELTA_MEM_SHUFFLE`` is a seed of the order in which cells and episodes are answered.
"""

import importlib.abc
import importlib.util
import os
import random
import sys

import shortage


class _Finder(importlib.abc.MetaPathFinder):
    """Changes some modules once they are loaded."""

    def __init__(self, changes):
        self.changes = changes

    def find_spec(self, name, path=None, target=None):
        if name not in self.changes:
            return None
        change = self.changes.pop(name)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def changed(module):
            execute(module)
            change(module)

        spec.loader.exec_module = changed
        return spec


def _episodes(module):
    plain = module.MemoryLM._answer

    def answer(self, requests):
        if self.journal is not None:
            episode, draw = self._group(requests[0].doc)
            with open(os.environ["DELTA_MEM_TALLY"], "a", encoding="utf-8") as file:
                file.write(f"{self.journal.path.parent} {episode} {draw}\n")
        return plain(self, requests)

    module.MemoryLM._answer = answer
    if shortage.VARIABLE in os.environ:
        shortage.limit(module)
    if seed := os.environ.get("DELTA_MEM_SHUFFLE"):
        module.sorted = lambda items, key: sorted(items, key=lambda item: random.Random(f"{seed} {key(item)}").random())


def _cells(module):
    plain = module._answer

    def answer(work, plans):
        return plain(work, random.Random(os.environ["DELTA_MEM_SHUFFLE"]).sample(plans, len(plans)))

    if os.environ.get("DELTA_MEM_SHUFFLE"):
        module._answer = answer


if os.environ.get("DELTA_MEM_TALLY"):
    sys.meta_path.insert(0, _Finder({"harness.lm": _episodes, "harness.jobs": _cells}))
