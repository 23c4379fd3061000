"""A store that was tampered with: each bad file is named, and no good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotunnel.modproxy.audit import audit
from gotunnel.storage import open_store
from tests.bundles import Sender, take_in, trusting
from tests.lab.sumdb import NAME

SPOILED = {
    "mods.lab.example/m000/@v/v1.0.0.mod": "its sum is",
    "mods.lab.example/m000/@v/v1.0.0.zip": "its sum is|isn't what its header says",
    "mods.lab.example/m001/@v/v1.0.0.info": "another version|JSON",
    f"sumdb/{NAME}/lookup/mods.lab.example/m002@v1.0.0": "isn't proved",
    f"sumdb/{NAME}/tile/8/0/000": "bytes, 8192 are wanted",
}


@pytest.mark.parametrize("name", SPOILED)
async def test_what_was_changed_is_named(name: str, tmp_path: Path) -> None:
    sender = Sender(tmp_path)
    here, there = open_store((tmp_path / "here").as_uri()), open_store((tmp_path / "there").as_uri())
    await take_in(await sender.bundle(here), there, trusting(sender.setting))
    assert [verdict.problem async for verdict in audit(there, sender.setting) if verdict.problem] == []

    path = tmp_path / "there" / name
    data = bytearray(path.read_bytes())
    place = data.find(b"v1.0.0") if not name.endswith(".zip") else data.rfind(b"filler.bin") - 2000
    if "lookup" in name:
        place = data.find(b"h1:") + 5
    data[place] ^= 0x01
    path.chmod(0o644)
    path.write_bytes(data[:-32] if "tile" in name else data)
    found = {verdict.stored.name: verdict.problem async for verdict in audit(there, sender.setting)}
    bad = {name: problem for name, problem in found.items() if problem}
    assert set(bad) == {name}
    assert any(words in bad[name] for words in SPOILED[name].split("|")), bad
    await here.close()
    await there.close()
