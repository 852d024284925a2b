"""The progress bar on a terminal, and lines without a bar elsewhere."""

from __future__ import annotations

import pytest

from maskx_tf.commands.progress import progress


@pytest.mark.parametrize("looks", [False, True])
def test_lines_are_printed_and_bars_shown_to_those_who_look(
    looks: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if looks:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("drawing") as bar:
        bar.started(2)
        bar.advance()
        bar.say("[red]x[/red] a line\x1b[2J of two")
        bar.at(2, "all done")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[red]x[/red] a line\\u001b[2J of two\n" in err.replace("\r", "")
    assert ("all done" in err) == ("2/2" in err) == looks
    if not looks:
        assert err == "[red]x[/red] a line\\u001b[2J of two\n"
