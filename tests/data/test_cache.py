"""The cache gives back what it was given, to the right owner, within its bounds, or says what is damaged."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.data.pipeline.cache import ArrayCache, fingerprint
from maskx_tf.errors import BadInput


def some(seed: int = 0, size: int = 50) -> dict[str, np.ndarray]:
    random = np.random.RandomState(seed)
    return {
        "boxes": random.rand(size, 4).astype(np.float32),
        "features": random.rand(3, 7, 7, 8).astype(np.float16),
        "valid": random.rand(size) < 0.5,
        "classes": random.randint(0, 9, size),
    }


def assert_same(found: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray]) -> None:
    assert found is not None
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.arrays"))


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", "a", 10)
    assert cache.get(1) is None
    assert cache.put(1, some(1))
    assert cache.put("1", some(2))  # another key
    assert cache.put(-5, {})
    for again in (cache, ArrayCache(tmp_path / "cache", "a", 10)):
        assert_same(again.get(1), some(1))
        assert_same(again.get("1"), some(2))
        assert again.get(-5) == {}


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, "a", 10)
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return some()

    for _ in range(3):
        assert_same(cache.get_or_make(7, make), some())
    assert len(made) == 1
    assert cache.put(7, some(8))  # one that has some keeps them
    assert_same(cache.get(7), some())


def test_other_weights_or_settings_empty_it(tmp_path: Path) -> None:
    weights = [np.arange(6.0).reshape(2, 3), np.ones(3, np.float32)]
    first = fingerprint(weights, "model: x")
    assert first == fingerprint([weight.copy() for weight in weights], "model: x")
    others = {
        fingerprint(weights, "model: y"),
        fingerprint(weights[::-1], "model: x"),
        fingerprint([weights[0].T, weights[1]], "model: x"),
        fingerprint([weights[0], weights[1].astype(np.float64)], "model: x"),
        fingerprint([weights[0] + 1e-12, weights[1]], "model: x"),
        fingerprint(weights, "model:", " x"),
    }
    assert len(others | {first}) == 7
    ArrayCache(tmp_path, first, 10).put(1, some())
    assert ArrayCache(tmp_path, first, 10).get(1) is not None
    assert ArrayCache(tmp_path, others.pop(), 10).get(1) is None
    assert size_of(tmp_path) == 0


def test_disk_is_bounded(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, "a", 1)
    large = {"features": np.zeros(300_000, np.uint8)}
    assert [cache.put(key, large) for key in range(5)] == [True, True, True, False, False]
    assert cache.put("small", some())
    assert size_of(tmp_path) <= 2**20
    assert_same(cache.get_or_make(4, lambda: large), large)  # made, though there is no room for it
    assert cache.get(4) is None
    again = ArrayCache(tmp_path, "a", 1)
    assert not again.put(5, large)
    assert size_of(tmp_path) <= 2**20


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text"])
def test_damaged_entry_is_named(tmp_path: Path, damage: str) -> None:
    cache = ArrayCache(tmp_path, "a", 10)
    cache.put(3, some())
    (path,) = tmp_path.rglob("*.arrays")
    data = path.read_bytes()
    broken = {
        "cut": data[: len(data) // 2],
        "bit": data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
        "empty": b"",
        "text": b"hello",
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(BadInput, match=f"^{path}: expected the arrays that were stored for 3, found others; remove"):
        cache.get(3)
    path.unlink()
    assert_same(cache.get_or_make(3, some), some())


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match=r"expected a new folder, an empty one, or one with cache.json"):
        ArrayCache(tmp_path, "a", 10)
    with pytest.raises(BadInput, match="cannot be written"):
        ArrayCache(tmp_path / "thesis.tex", "a", 10)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_nothing_half_written_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArrayCache(tmp_path, "a", 10)

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.put(1, some())
    monkeypatch.undo()
    assert cache.get(1) is None
    assert cache.put(1, some())


def test_threads_share_it(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, "a", 10)
    found: list[bool] = []

    def work() -> None:
        for key in range(20):
            arrays = cache.get_or_make(key, functools.partial(some, key))
            found.append(all(np.array_equal(arrays[name], value) for name, value in some(key).items()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


def test_numbers_that_would_change_are_refused(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, "a", 10)
    with pytest.raises(ValueError, match="x is object"):
        cache.put(1, {"x": np.array([None])})
