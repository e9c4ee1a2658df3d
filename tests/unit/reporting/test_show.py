"""One cell on the screen."""

import io

import pytest
from rich.console import Console

from harness.errors import HarnessError
from harness.reporting.show import show

CELL = "embedded/smollm2/delta_mem_tsw/seed42/locomo/removed/own"


def test_record_and_first_answers(embedded):
    console = Console(file=io.StringIO(), width=140)
    show(embedded[1], CELL, console, count=3)
    text = console.file.getvalue()
    for fact in (CELL, "f1 *", "efefefefefef restored", "an invented answer", "multi_hop", "write 4.0", "lost 93%"):
        assert fact in text
    assert text.count("an invented answer") == 3


@pytest.mark.parametrize("cell_id", [CELL.replace("tsw", "tws"), "../embedded", ""])
def test_no_such_cell(embedded, cell_id):
    with pytest.raises(HarnessError, match="there is no cell"):
        show(embedded[1], cell_id)
