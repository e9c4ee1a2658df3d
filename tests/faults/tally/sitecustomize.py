"""Loaded by every Python process of a pipeline under test: counts the episodes that workers begin to answer.

``DELTA_MEM_TALLY`` names a file to which a line is appended each time: the cell's folder and the episode. Nothing of
the harness knows of it.
"""

import importlib.abc
import importlib.util
import os
import sys

import shortage

COUNTED = "harness.lm"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != COUNTED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def counting(module):
            execute(module)
            _count(module.MemoryLM)
            if shortage.VARIABLE in os.environ:
                shortage.limit(module)

        spec.loader.exec_module = counting
        return spec


def _count(model):
    plain = model._answer

    def answer(self, requests):
        if self.journal is not None:
            episode, draw = self._group(requests[0].doc)
            with open(os.environ["DELTA_MEM_TALLY"], "a", encoding="utf-8") as file:
                file.write(f"{self.journal.path.parent} {episode} {draw}\n")
        return plain(self, requests)

    model._answer = answer


if os.environ.get("DELTA_MEM_TALLY"):
    sys.meta_path.insert(0, _Finder())
