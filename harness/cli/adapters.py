"""Commands on adapter files: look at one, convert, verify, trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.cli._common import app, table
from harness.errors import HarnessError

adapter_app = typer.Typer(help="Adapter files: look at one, convert, verify, trace.", no_args_is_help=True)
app.add_typer(adapter_app, name="adapter")

Method = Annotated[str, typer.Option(help="Method that the adapter is of.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an adapter, in PEFT's format or the authors'.")]
Weights = Annotated[str, typer.Option("--backbone", help="A local model folder, or EXPERIMENT/BACKBONE.")]

ADAPTERS_OF = "delta_mem"


@adapter_app.command("inspect")
def adapter_inspect(folder: Folder, method: Method = ADAPTERS_OF) -> None:
    """Say what an adapter is: variant, sizes, heads, layers, gates, dtype, and what its file leaves out."""
    table(str(folder), ["what", "value"], [list(pair) for pair in _tools(method).inspect(folder)])


@adapter_app.command("convert")
def adapter_convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of an adapter.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write, which must not exist.")],
    to: Annotated[Literal["native", "official"], typer.Option(help="PEFT's format, or the authors'.")],
    backbone: Annotated[
        str | None, typer.Option(help="Check against this: a shape (qwen3-4b), a local folder, or EXPERIMENT/BACKBONE.")
    ] = None,
    keep_dtype: Annotated[bool, typer.Option("--keep-dtype", help="Write the tensors as stored, not in bf16.")] = False,
    method: Method = ADAPTERS_OF,
) -> None:
    """Write an adapter in the other format; without --backbone its sizes are checked against its own configuration."""
    _notes(_tools(method).convert(source, target, to, backbone, keep_dtype))
    typer.echo(target)


@adapter_app.command("verify")
def adapter_verify(
    folder: Folder,
    backbone: Weights,
    other: Annotated[Path | None, typer.Option(help="Another adapter, which must do the same.")] = None,
    method: Method = ADAPTERS_OF,
) -> None:
    """Load an adapter onto its backbone and check what it does there."""
    checks = _tools(method).verify(folder, backbone, other)
    rows = [[check.name, check.figure, "fails" if check.failure else "holds"] for check in checks]
    table(str(folder), ["check", "figure", "outcome"], rows)
    for check in checks:
        if check.failure:
            raise HarnessError(check.failure)


@adapter_app.command("trace")
def adapter_trace(
    backbone: Weights,
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter.")],
    inputs: Annotated[Path, typer.Option(help="Safetensors: write_ids, read_ids; masks and segment ids if wanted.")],
    out: Annotated[Path, typer.Option(help="Safetensors to write: write.logits, read.logits, state.LAYER.")],
    method: Method = ADAPTERS_OF,
) -> None:
    """Write tokens, read others from the state alone, and keep logits and states, to compare implementations."""
    _notes(_tools(method).trace(backbone, adapter, inputs, out))
    typer.echo(out)


def _tools(method: str) -> Any:
    from harness.registry import resolve

    return resolve(method)[0].adapter_tools()


def _notes(notes: list[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)
