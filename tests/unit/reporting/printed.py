"""For tests: another number where the paper prints one, in a copy of ``tables/reported``."""

from harness.reporting.audit.facts import facts


def change(folder, file, start, value):
    """Put another number on the one line that starts so."""
    path = folder / f"{file}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{start},")]
    source = lines[place].rsplit(",", 1)[1]
    lines[place] = f"{start},{value},{source}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def reprint(folder, claim, value):
    """Let a claim say another number."""
    path = folder / "claims.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{claim},")]
    printed = next(f.printed for f in facts(folder) if f.id == claim)
    assert f",{printed}," in lines[place]
    lines[place] = lines[place].replace(f",{printed},", f",{value},")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
