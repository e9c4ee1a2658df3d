"""What this machine holds of backbones, for workers on machines that do not have them.

Importing this module imports no torch, for whoever starts a cluster imports it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness import cache
from harness.errors import HarnessError
from harness.experiment import BackboneSpec


class HeldHere:
    """Offers the backbones of this machine, and hands them out in parts. An actor on the pipeline's own machine."""

    def __init__(self) -> None:
        self._offers: dict[str, cache.Offer] = {}
        self._folders: dict[str, Path] = {}

    def offer(self, spec: str) -> cache.Offer:
        """See :class:`harness.cache.Shelf`; a backbone is looked at once, so that all workers get the same."""
        from harness import sources

        if spec not in self._offers:
            wanted = BackboneSpec.model_validate_json(spec)
            where, revision = sources.locate(wanted)
            digest, files = sources.identity(wanted, where, revision), sources.contents(Path(where))
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(wanted.name).name)
            self._folders[digest] = Path(where)
            self._offers[spec] = cache.Offer(name, digest, files)
        return self._offers[spec]

    def part(self, digest: str, file: str, start: int) -> bytes:
        """See :class:`harness.cache.Shelf`."""
        with (self._folders[digest] / Path(file).name).open("rb") as stream:
            stream.seek(start)
            return stream.read(cache.PART)


class Elsewhere:
    """The same, asked of that actor through Ray, whose object store carries the parts."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def offer(self, spec: str) -> cache.Offer:
        return self._answer(self._actor.offer.remote(spec))

    def part(self, digest: str, file: str, start: int) -> bytes:
        return self._answer(self._actor.part.remote(digest, file, start))

    def _answer(self, reference: Any) -> Any:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, HarnessError):
                raise error.cause from error
            raise
        except RayActorError as error:
            raise HarnessError(
                "the pipeline's machine no longer hands out its backbones (its Ray node is lost); run again"
            ) from error


def put_up() -> Any:
    """Start the actor on this machine's node of the cluster that this process is connected to; gives its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(HeldHere).options(num_cpus=0, scheduling_strategy=here).remote()
