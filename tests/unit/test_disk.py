"""A path that cannot be used is named with the mend, whoever's words say so."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from harness import cli, disk
from harness.errors import HarnessError


@pytest.mark.parametrize("number", disk.SENTENCES, ids=errno.errorcode.get)
def test_each_refusal_is_one_sentence_with_path_and_mend(number):
    with pytest.raises(HarnessError, match=r"^results/x .*[;,] .*$"), disk.sentences():
        raise OSError(number, os.strerror(number), "results/x")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPIPE, "Broken pipe"),
        OSError(errno.ENOSPC, "No space left on device"),  # of no path
        OSError("a model that cannot be loaded"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    ],
)
def test_what_names_no_path_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, disk.sentences():
        raise error
    assert raised.value is error


def test_where_no_path_is_named_the_edges_own_is():
    with (
        pytest.raises(HarnessError, match=r"^results cannot be written, for its disk is full"),
        disk.sentences("results"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_of_two_paths_the_one_that_is_written_is_named(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(HarnessError, match=r"^b .* full"), disk.sentences():
        raise OSError(errno.ENOSPC, "full", "a", None, "b")
    with pytest.raises(HarnessError, match="nowhere/b is not there"), disk.sentences():
        shutil.copyfile(tmp_path / "a", tmp_path / "nowhere/b")


def test_a_writer_that_names_no_path_is_given_one():
    with pytest.raises(HarnessError, match=r"^results/x .* full"), disk.sentences(), disk.writing("results/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(HarnessError, match=r"^results/y .* read-only"), disk.sentences(), disk.writing("results/x"):
        raise OSError(errno.EROFS, "Read-only", "results/y")


class SerialError(Exception):
    """As safetensors' own, which is no OSError."""


def test_a_library_that_says_the_systems_number_in_words_is_understood(tmp_path):
    with pytest.raises(HarnessError, match=r"x .* full"), disk.sentences(), disk.writing(tmp_path / "x"):
        raise SerialError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_library_that_says_nothing_is_believed_where_the_disk_refuses_too(tmp_path, monkeypatch):
    def refuses(**_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(RuntimeError, match="unexpected pos"), disk.writing(tmp_path / "a/b/x"):
        raise RuntimeError("unexpected pos 576 vs 534")
    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuses)
    with pytest.raises(HarnessError, match=r"a/b/x .* quota"), disk.sentences(), disk.writing(tmp_path / "a/b/x"):
        raise RuntimeError("unexpected pos 576 vs 534")


def test_a_mistake_that_is_told_already_passes():
    with pytest.raises(HarnessError, match=r"^told; mend$"), disk.sentences(), disk.writing("x"):
        raise HarnessError("told; mend")


def test_the_command_line_ends_with_exit_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    work = ["fit", "smoke", "--backbone", "tiny_llama", "--row", "lora", "--seed", "42", "--set", "run.executor=inline"]
    with pytest.raises(SystemExit) as left:
        cli.app([*work, "--results", str(tmp_path / "file")])
    assert left.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"harness: {tmp_path}/file")
    assert said.endswith("is, or lies below, a file where a folder should be; move that file away")
