"""Weights on disk: what comes back is what was saved, and nothing else is loaded."""

import hashlib
import http.server
import json
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cryopick.errors import OutputError, WeightsError
from cryopick.io.weights import (
    ModelCard,
    download_weights,
    find_weights,
    load_checkpoint,
    read_card,
    save_checkpoint,
    write_tensors,
)

CARD = ModelCard(
    picker="toy",
    architecture={"network": "toy", "widths": (3, 4)},
    preprocessing={"pixel_size_angstrom": 2.5},
    scores={"f1": 0.5},
    steps=7,
    notes=("é",),
)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "toy.safetensors", network().state_dict(), CARD)
    return tmp_path / "toy.safetensors"


def test_weights_and_card_come_back(saved):
    checkpoint = load_checkpoint(saved, picker="toy", architecture=CARD.architecture)
    original, restored = network().state_dict(), checkpoint.tensors
    assert original.keys() == restored.keys()
    assert all(torch.equal(original[name], restored[name]) for name in original)
    assert checkpoint.card.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert replace(checkpoint.card, sha256="", architecture={}) == replace(CARD, architecture={})
    fresh = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    checkpoint.load_into(fresh)
    assert torch.equal(fresh[0].weight, original["0.weight"])


def test_weights_are_as_readable_as_any_file(saved):
    assert saved.stat().st_mode & 0o777 == saved.with_suffix(".json").stat().st_mode & 0o777


def test_one_changed_byte_is_found(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="damaged or changed"):
        load_checkpoint(saved)


def test_other_architecture_names_what_differs(saved):
    with pytest.raises(WeightsError, match=r"widths is \[3, 4\], expected \[3, 5\]"):
        load_checkpoint(saved, architecture={"network": "toy", "widths": [3, 5]})
    with pytest.raises(WeightsError, match="depth is 'absent', expected 2"):
        load_checkpoint(saved, architecture={**CARD.architecture, "depth": 2})


def test_weights_of_another_picker_are_refused(saved):
    with pytest.raises(WeightsError, match="weights of picker 'toy', expected 'general'"):
        load_checkpoint(saved, picker="general")


def test_network_of_other_shape_is_refused_and_unchanged(saved):
    other = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    before = other[0].weight.clone()
    with pytest.raises(WeightsError, match=r"0\.weight is \(4, 3\), expected \(5, 3\)"):
        load_checkpoint(saved).load_into(other)
    assert torch.equal(other[0].weight, before)
    with pytest.raises(WeightsError, match=r"has unknown 1\.bias"):
        load_checkpoint(saved).load_into(torch.nn.Sequential(torch.nn.Linear(3, 4)))


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    for name in ("evil.pt", "evil.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    digest = hashlib.sha256((tmp_path / "evil.safetensors").read_bytes()).hexdigest()
    card = {"picker": "toy", "architecture": {}, "sha256": digest, "format": 1}
    (tmp_path / "evil.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="only those are read that the authors"):
        load_checkpoint(tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_checkpoint(tmp_path / "evil.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_missing_or_foreign_card_is_explained(saved):
    saved.with_suffix(".json").write_text('{"name": "something"}')
    with pytest.raises(WeightsError, match="is not a card of weights"):
        load_checkpoint(saved)
    saved.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="copy both"):
        load_checkpoint(saved)


def test_card_of_a_later_format_asks_for_an_update(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**card, "format": 2}))
    with pytest.raises(WeightsError, match="update cryopick"):
        read_card(saved)


def test_card_refuses_what_json_lacks(tmp_path):
    with pytest.raises(WeightsError, match="plain finite JSON"):
        save_checkpoint(tmp_path / "a.safetensors", network().state_dict(), replace(CARD, scores={"f1": float("nan")}))


def test_failed_write_keeps_the_older_file(saved):
    before = saved.read_bytes()
    saved.with_name("folder.safetensors").mkdir()
    with pytest.raises(OutputError):
        write_tensors(saved.with_name("folder.safetensors"), network().state_dict())
    assert saved.read_bytes() == before
    assert {path.name for path in saved.parent.iterdir()} == {"toy.safetensors", "toy.json", "folder.safetensors"}


def test_tied_parameters_are_saved(tmp_path):
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    save_checkpoint(tmp_path / "tied.safetensors", tied.state_dict(), CARD)
    assert torch.equal(load_checkpoint(tmp_path / "tied.safetensors").tensors["1.weight"], tied[0].weight)


def test_names_are_found_in_the_folder_of_the_variable(saved, monkeypatch):
    monkeypatch.setenv("CRYOPICK_WEIGHTS", str(saved.parent))
    assert find_weights("toy") == saved
    assert find_weights(saved) == saved
    with pytest.raises(WeightsError, match=r"no weights named 'other'; known: .*toy"):
        find_weights("other")
    with pytest.raises(WeightsError, match="no such weights file"):
        find_weights(saved.parent / "missing.safetensors")


def test_training_folder_stands_for_its_weights(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "trained" / "weights.safetensors", network().state_dict(), CARD)
    assert find_weights(tmp_path / "trained") == tmp_path / "trained" / "weights.safetensors"
    monkeypatch.chdir(tmp_path)
    for typed in ("trained/", "./trained", "trained", Path("trained/")):
        assert find_weights(typed).resolve() == tmp_path / "trained" / "weights.safetensors"


@pytest.fixture
def server(saved: Path):
    """Serves the folder of `saved` on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(saved.parent), **kwargs)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_download_is_kept_only_with_the_right_hash(server, saved, tmp_path):
    folder = tmp_path / "cache"
    with pytest.raises(WeightsError, match="the download was deleted"):
        download_weights(f"{server}/toy.safetensors", sha256="0" * 64, folder=folder)
    assert list(folder.iterdir()) == []
    path = download_weights(f"{server}/toy.safetensors", sha256=read_card(saved).sha256, folder=folder)
    assert load_checkpoint(path).card == read_card(saved)
    with pytest.raises(WeightsError, match="download failed"):
        download_weights(f"{server}/none.safetensors", sha256="0" * 64, folder=folder)
    with pytest.raises(WeightsError, match="expected an http"):
        download_weights(saved.as_uri(), sha256="0" * 64, folder=folder)


def edited(saved: Path, **changes: object) -> Path:
    card = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**card, **changes}))
    return saved


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"picker": 3}, "damaged: picker is 3, expected a text"),
        ({"architecture": []}, r"damaged: architecture is \[\], expected an object"),
        ({"preprocessing": None}, "damaged: preprocessing is None, expected an object"),
        ({"postprocessing": "x"}, "damaged: postprocessing is 'x', expected an object"),
        ({"seed": 1.5}, "damaged: seed is 1.5, expected a whole number"),
        ({"steps": True}, "damaged: steps is True, expected a whole number"),
        ({"scores": {"f1": "high"}}, "damaged: scores is .*, expected numbers by name"),
        ({"notes": 5}, "damaged: notes is 5, expected a list of texts"),
        ({"notes": [5]}, r"damaged: notes is \[5\], expected a list of texts"),
        ({"sha256": 7}, "damaged: sha256 is 7, expected a text"),
        ({"format": True}, "damaged: format is True, expected a whole number"),
        ({"format": "1"}, "this version reads format 1"),
        ({"format": [1]}, "this version reads format 1"),
        ({"postprocessing": {"calibration": [[1e999]]}}, "damaged: postprocessing holds inf, expected finite numbers"),
        ({"settings": {"a": float("nan")}}, "damaged: settings holds nan, expected finite numbers"),
        ({"architecture": {"widths": [3, 10**12]}}, "damaged: architecture holds .*, expected at most 65536"),
        ({"architecture": {"widths": [3, 10**400]}}, "damaged: architecture holds 1000.*, expected at most 65536"),
        ({"data": {"a": nested(40)}}, "damaged: data has more than 32 levels"),
        ({"licence": "\ud800"}, "damaged: licence holds half a character"),
        ({"unknown": 1}, "update cryopick"),
    ],
)
def test_every_field_of_a_card_is_what_it_should_be_or_named(saved, changes, message):
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(edited(saved, **changes))


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'"x"', b"1" * 10_000])
def test_a_card_that_is_no_card_is_a_weights_error(saved, content):
    saved.with_suffix(".json").write_bytes(content)
    with pytest.raises(WeightsError, match="is not a card of weights"):
        load_checkpoint(saved)


def test_truncated_and_foreign_tensors_are_weights_errors(saved):
    content = saved.read_bytes()
    for damaged in (b"", content[:5], content[: len(content) // 2], b"\xff" * 64, content + b"more"):
        saved.write_bytes(damaged)
        digest = hashlib.sha256(damaged).hexdigest()
        for sha256, message in ((read_card(saved).sha256, "damaged or changed"), (digest, "cannot be read as safet")):
            original = saved.with_suffix(".json").read_text()
            with pytest.raises(WeightsError, match=message):
                load_checkpoint(edited(saved, sha256=sha256))
            saved.with_suffix(".json").write_text(original)


def test_an_architecture_that_cannot_be_built_is_a_weights_error(saved):
    def build(architecture: dict[str, Any]) -> torch.nn.Module:
        first, second = architecture["widths"]
        return torch.nn.Sequential(torch.nn.Linear(first, second), torch.nn.BatchNorm1d(second))

    assert torch.equal(load_checkpoint(saved).build(build)[0].weight, network()[0].weight)
    for widths in ([3], [3, "4"], [-3, 4], None, [3, 5], {}):
        with pytest.raises(WeightsError):
            load_checkpoint(edited(saved, architecture={"widths": widths})).build(build)
    with pytest.raises(WeightsError, match="lacks widths"):
        load_checkpoint(edited(saved, architecture={})).build(build)
