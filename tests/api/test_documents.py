"""The Python of the documents runs as it stands there, against a service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings
from tests.api.conftest import photo
from tests.api.test_client import over_sockets

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURES = {
    "ada.jpg": 1, "ada-1.jpg": 2, "ada-2.jpg": 3, "eve.jpg": 4, "eve-1.jpg": 5, "eve-2.jpg": 6,
    "a.jpg": 1, "b.jpg": 7, "door.jpg": 8, "group.jpg": 9, "somebody.jpg": 1,
}  # fmt: skip
# What each must have printed when it has come to its end.
SAYS = {
    "docs/api.md": (r"^200 \[", r"^201 ada", r"^201 eve", r"^ada \('f-"),
    "docs/quickstart.md": (r"^nobody who is enrolled$",),
    "README.md": (r"^identified=True person_id='ada'",),
}


@pytest.mark.parametrize("page", SAYS)
def test_python_runs(
    page: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    monkeypatch.chdir(tmp_path)
    for name, person in PICTURES.items():
        Path(name).write_bytes(photo(person))
    with over_sockets(settings) as client:
        names: dict[str, object] = {}
        for block in blocks:
            exec(compile(block.replace("http://127.0.0.1:8000", str(client._http.base_url)), page, "exec"), names)
    printed = capsys.readouterr().out
    for pattern in SAYS[page]:
        assert re.search(pattern, printed, re.MULTILINE), printed
