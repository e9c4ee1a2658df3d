"""A pickle in the place of a file, at every door through which one comes in: it is executed at none."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch

from harness import backbones, checkpoints, config, manifest, overlay
from harness.data import files, own
from harness.errors import HarnessError
from harness.experiment import BackboneSpec
from harness.others import formats
from harness.session import Session
from harness.tasks import Prompts
from harness.verify import verify
from tests.faults.broken_off import Run, broken_off
from tests.faults.campaign_flips import ARTEFACTS
from tests.faults.sheet import Result


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def plain(mark: Path, file: Path) -> None:
    """The pickle itself."""
    file.write_bytes(pickle.dumps(Payload(mark)))


def tensors(mark: Path, file: Path) -> None:
    """As torch.save leaves it among tensors."""
    torch.save({"x": torch.zeros(1), "y": Payload(mark)}, file)


def column(mark: Path, file: Path) -> None:
    """As the type of a Parquet column that brings its own pickled Python class."""
    told = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(mark)),
    }
    schema = pa.schema([pa.field("answer", pa.int64(), metadata=told)])
    parquet.write_table(pa.table([[1]], schema=schema), file)


def run(quick: bool) -> Iterator[Result]:
    found: dict[str, str] = {}
    with broken_off() as (broken, _), TemporaryDirectory(prefix="payloads-") as folder:
        mark = Path(folder) / "mark"
        armed(mark)
        for name, door in doors(broken, mark).items():
            found[name] = entered(door, mark)
    outcomes = Counter(outcome for outcome in found.values())
    executed = [name for name, outcome in found.items() if outcome == "executed"]
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    yield Result(
        f"a pickle payload at {len(found)} doors: {', '.join(found)}",
        "executed 0 times",
        f"executed {len(executed)} times ({told}){': ' + ', '.join(executed) if executed else ''}",
        not executed,
    )


def armed(mark: Path) -> None:
    """See that a payload does leave its mark, in each of its forms that can be read at all."""
    file = mark.with_name("armed")
    plain(mark, file)
    pickle.loads(file.read_bytes())
    assert mark.exists()
    mark.unlink()
    tensors(mark, file)
    torch.load(file, weights_only=False)
    assert mark.exists()
    mark.unlink()


def entered(door: Callable[[], Any], mark: Path) -> str:
    """What a door does with the payload."""
    try:
        door()
        outcome = "left aside"
    except HarnessError:
        outcome = "refused in a sentence"
    except Exception as error:
        outcome = f"refused by {type(error).__name__}"
    if not mark.exists():
        return outcome
    mark.unlink()
    return "executed"


def doors(broken: Run, mark: Path) -> dict[str, Callable[[], Any]]:
    """Every way in, each with its payload."""
    found: dict[str, Callable[[], Any]] = {}
    for kind, files_of in ARTEFACTS.items():
        if "checkpoint" not in kind:
            found[kind] = lambda files_of=files_of: again(broken, mark, files_of, plain)
    found["samples.parquet, a column's type"] = lambda: again(broken, mark, ARTEFACTS["samples.parquet"], column)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin"):
        found[f"checkpoint of a fit, {name}"] = lambda name=name: resealed(broken, mark, name)
    found["manifest.json"] = lambda: listed(broken, mark)
    for name in ("x.json", "x.jsonl", "x.csv", "x.parquet", "x.json.gz"):
        found[f"data file, {name[2:]}"] = lambda name=name: files.read(lying(mark, name, plain))
    found["data file, parquet, a column's type"] = lambda: files.read(lying(mark, "x.parquet", column))
    found["own data"] = lambda: own.load(lying(mark, "x.jsonl", plain), None)
    found["stored answers of others"] = lambda: formats.read(lying(mark, "x.json", plain))
    found["adapter of the authors, .pt"] = lambda: official(mark)
    found["backbone folder with pytorch_model.bin"] = lambda: model_folder(mark)
    found["saved session"] = lambda: session(mark)
    for name, read in {
        "experiment": config.read,
        "prompts": Prompts,
        "overlay": lambda f: overlay.read(f, "locomo"),
    }.items():
        found[f"YAML, {name}"] = lambda read=read: read(lying(mark, "x.yaml", plain))
    return found


def lying(mark: Path, name: str, plant: Callable[[Path, Path], None]) -> Path:
    """A file of that name with the payload."""
    file = mark.parent / name
    plant(mark, file)
    return file


def again(broken: Run, mark: Path, wanted: str, plant: Callable[[Path, Path], None]) -> None:
    """The same command, with the payload in the place of every file of a kind."""
    with broken.copy() as run:
        planted = [path for path in run.folder.glob(wanted) if path.is_file()]
        assert planted, wanted
        for file in planted:
            plant(mark, file)
        run.again()


def resealed(broken: Run, mark: Path, name: str) -> None:
    """The same command, where a checkpoint was sealed with the payload in it."""
    with broken.copy() as run:
        (checkpoint,) = run.results.glob("fits/.*.work/trainer/checkpoint-2")
        tensors(mark, checkpoint / name)
        if name.startswith("adapter_model"):
            (checkpoint / "adapter_model.safetensors").unlink()
        checkpoints.seal(checkpoint)
        run.again()


def listed(broken: Run, mark: Path) -> None:
    with broken.copy() as run:
        plain(mark, manifest.path_of(run.results, "smoke"))
        verify(run.results, "smoke")


def official(mark: Path) -> None:
    """The authors' layout, whose parameters are a `.pt`."""
    from methods.delta_mem import _official

    (mark.parent / _official.CONFIG).write_text("{}")
    tensors(mark, mark.parent / _official.TENSORS)
    _official._tensors(mark.parent / _official.TENSORS)


def model_folder(mark: Path) -> None:
    """A model of the Hub's old layout."""
    folder = mark.parent / "model"
    tiny = backbones.open_backbone(BackboneSpec(random="tiny-llama"))
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    tensors(mark, folder / "pytorch_model.bin")
    backbones.open_backbone(BackboneSpec(folder=str(folder)))


def session(mark: Path) -> None:
    """A memory that was saved, with its state exchanged."""
    with Session.open("random:tiny-llama", "delta_mem_tsw") as opened:
        opened.write("The cup is red.")
        opened.save(mark.parent / "session")
        for file in (mark.parent / "session" / "state").iterdir():
            plain(mark, file)
        opened.load(mark.parent / "session")
