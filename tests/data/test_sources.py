"""Sources of known entropy against enumeration and counting, and integer sequences from files."""

from __future__ import annotations

import io
import itertools
import json
import math
import zipfile

import numpy as np
import pytest

from dlm import config
from dlm.data import build
from dlm.data.corpora import CORPORA, ids, known
from dlm.errors import DlmError

NAMES = ("markov", "hmm", "pcfg", "copies", "parity", "s5", "addition")
SMALL = {"documents": 400}


def documents(name: str, **options) -> list[np.ndarray]:
    return [ids for _, ids in CORPORA[name](**(SMALL | options)).documents]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_documents_and_more_extend_the_list(name):
    one, again, more = documents(name), documents(name), documents(name, documents=500)
    source = CORPORA[name](**SMALL)
    for a, b, c in zip(one, again, more, strict=False):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert a.min() >= 0 and a.max() < source.vocab_size
    assert len(more) == 500 and len({len(a) for a in more}) == 1
    other = documents(name, seed=1)
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    assert 0 < source.entropy <= math.log(source.vocab_size) + 1e-12


@pytest.mark.parametrize("name, option, value", [
    ("markov", "vocabulary", 1), ("hmm", "states", 0), ("pcfg", "length", 48), ("copies", "wrong", 1.0),
    ("copies", "length", 7), ("parity", "group", 5), ("s5", "length", 3), ("addition", "digits", 0),
    ("markov", "documents", True),
])  # fmt: skip
def test_a_wrong_option_is_named(name, option, value):
    with pytest.raises(DlmError, match=option):
        CORPORA[name](**build.options(config.Corpus(name=name, options={option: value})))


def test_the_entropy_of_a_markov_chain_by_enumeration():
    """All strings of 3 symbols x length 4, from the chain that the source draws with."""
    source = known.markov(documents=4000, length=4, vocabulary=3, concentration=2, seed=5)
    rng = np.random.default_rng([5, 1])
    rows = rng.dirichlet(np.full(3, 2 / 3), 3)
    pi = known.stationary(rows)
    np.testing.assert_allclose(pi @ rows, pi, atol=1e-12)
    strings = list(itertools.product(range(3), repeat=4))
    p = np.array(
        [pi[s[0]] * np.prod([rows[a, b] for a, b in itertools.pairwise(s)]) for s in strings]
    )
    assert source.entropy == pytest.approx(-(p * np.log(np.maximum(p, 1e-300))).sum() / 4, rel=1e-9)
    place = {s: i for i, s in enumerate(strings)}
    counts = np.bincount([place[tuple(x.tolist())] for _, x in source.documents], minlength=81)
    error = np.sqrt(p * (1 - p) / 4000) + 1e-9
    assert (np.abs(counts / 4000 - p) < 5 * error + 2e-3).all()


def test_the_forward_algorithm_sums_over_hidden_states():
    rng = np.random.default_rng(0)
    rows, shown, first = (
        rng.dirichlet(np.ones(3), 3),
        rng.dirichlet(np.ones(4), 3),
        rng.dirichlet(np.ones(3)),
    )
    tokens = np.array([2, 0, 3, 3])
    total = sum(
        first[h[0]] * np.prod([rows[a, b] for a, b in itertools.pairwise(h)])
        * np.prod([shown[s, t] for s, t in zip(h, tokens, strict=True)])
        for h in itertools.product(range(3), repeat=4)
    )  # fmt: skip
    assert known.forward(tokens, first, rows, shown) == pytest.approx(math.log(total), rel=1e-12)


def test_the_inside_algorithm_sums_over_trees():
    rng = np.random.default_rng(1)
    symbols, tokens = 3, np.array([1, 0, 2, 2])
    pairs, shown = rng.dirichlet(np.ones(symbols**2), symbols), rng.dirichlet(np.ones(3), symbols)
    total = 0.0
    for b, c, w, x, y, z in itertools.product(range(symbols), repeat=6):
        p = pairs[0, b * symbols + c] * pairs[b, w * symbols + x] * pairs[c, y * symbols + z]
        total += p * np.prod([shown[s, t] for s, t in zip((w, x, y, z), tokens, strict=True)])
    assert known.inside(tokens, pairs, shown) == pytest.approx(math.log(total), rel=1e-12)
    with_all = [
        known.inside(np.array(t), pairs, shown) for t in itertools.product(range(3), repeat=4)
    ]
    assert np.exp(with_all).sum() == pytest.approx(1)


def test_copies_parity_products_and_sums_are_right():
    for x in documents("copies", wrong=0.0):
        np.testing.assert_array_equal(x[:32], x[32:])
    changed = np.mean([x[:32] != x[32:] for x in documents("copies", wrong=0.2)])
    assert changed == pytest.approx(0.2, abs=0.02)
    for x in documents("parity"):
        assert (x.reshape(-1, 8).sum(1) % 2 == 0).all()
    table = known.products()
    assert (np.sort(table, axis=0) == np.arange(120)[:, None]).all()
    assert (table[0] == np.arange(120)).all() and (table[:, 0] == np.arange(120)).all()
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 120, (3, 50))
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    for x in documents("s5")[:5]:
        at = 0
        for element, product in x.reshape(-1, 2):
            at = table[at, element]
            assert product == 120 + at
    for x in documents("addition"):
        text = "".join("0123456789+="[i] for i in x)
        left, total = text.split("=")
        p, q = left.split("+")
        assert int(p[::-1]) + int(q[::-1]) == int(total[::-1])


# --- integers from files --------------------------------------------------------------------------


def read(path, **options) -> dict[str, list[int]]:
    return {name: x.tolist() for name, x in ids.ids(str(path), 10, **options).documents}


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", content)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"an": "object"}], object))
    return file.getvalue()


def test_arrays_and_lines_of_ids(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "b.npz", x=np.array([1, 2]), y=np.array([[3], [4]]))
    (tmp_path / "c.jsonl").write_text('[1, 2]\n\n{"ids": [3]}\n')
    assert read(tmp_path / "a.npy") == {"a.npy:1": [0, 1, 2], "a.npy:2": [3, 4, 5]}
    assert read(tmp_path / "b.npz") == {"b.npz:x": [1, 2], "b.npz:y:1": [3], "b.npz:y:2": [4]}
    assert read(tmp_path / "c.jsonl") == {"c.jsonl:1": [1, 2], "c.jsonl:3": [3]}
    assert len(read(tmp_path / "*")) == 7
    (tmp_path / "d.json").write_text('[[1, 2], {"ids": [3]}, [12345678, 0]]')
    assert list(read(tmp_path / "d.json").values()) == [[1, 2], [3], [12345678, 0]]


@pytest.mark.parametrize("name, content, message", [
    ("a.npy", b"no array", "not a readable .npy"),
    ("a.jsonl", b"{", "a.jsonl:1: not JSON"), ("a.jsonl", b"[1.5]", "list of whole numbers"),
    ("a.jsonl", b'{"tokens": [1]}', "no field 'ids'; there are tokens"),
    ("a.npz", zipped(b"nothing of numpy"), "not a readable .npz file of numbers: "),
    ("a.npz", zipped(b"\x93NUMPY\x01\x00"), "not a readable .npz file of numbers: "),
    ("a.npz", zipped(pickled()), "not a readable .npz file of numbers: .*allow_pickle"),
    ("a.npz", zipped(b"x" * 99)[:-30], "not a readable .npz file of numbers: "),
    ("a.npy", pickled(), "not a readable .npy file of numbers: .*allow_pickle"),
    ("a.jsonl", b"[99999999999999999999]", "a.jsonl:1: .*too large"),
    ("a.jsonl", b"[" * 200_000, "a.jsonl:1: not JSON: brackets are nested too deep"),
    ("a.json", b"[[1, 2], [3]", "a.json: not a JSON array: element 3: "),
    ("a.csv", b"1,2", "must end in .npy, .npz, .jsonl"),
])  # fmt: skip
def test_a_broken_file_of_ids_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DlmError, match=message):
        read(tmp_path / name)


def test_what_are_no_ids_is_told(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(DlmError, match="float64 of shape"):
        read(tmp_path / "a.npy")
    options = {"paths": str(tmp_path / "a.npy"), "vocab_size": 1}
    with pytest.raises(DlmError, match="vocab_size=1: must be from 2 to 2,147,483,647"):
        build.options(config.Corpus(name="ids", options=options))
    assert json.dumps(ids.ids(str(tmp_path / "a.npy"), 5).state)
