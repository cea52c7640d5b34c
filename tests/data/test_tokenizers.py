"""Every tokenizer gives back the text it was given, and learns from nothing but its texts."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from dlm import config
from dlm.data import build, round_trip, tokenizer_files, tokenizers
from dlm.errors import DlmError
from places import PUBLIC

GIVEN = PUBLIC / "tokenizers"
TEXTS = [
    "The quick brown fox jumps over the lazy dog.\n",
    "  Two spaces,\ta tab and\r\n\n blank lines;\n" * 3,
    "Déjà vu: naïve café, Größe, 東京, 😀.\n",
] + [
    f"Line {i} says that {i} times {i} is {i * i}, and the next line says more.\n"
    for i in range(60)
]
ODD = [
    "",
    " ",
    "\n",
    "\u2581 beside \u2581\u2581 a space",  # SentencePiece writes spaces so
    "<0x41></s><unk><|endoftext|>",  # names of special tokens are text when they stand in text
    "\x00\x01\x7f\ufeff\ufffd\u2028",
    "e\u0301 and \u00e9",  # no normalisation
    "\U0010ffff\U00010000",
]


def make(kind: str, **fields: object) -> tokenizers.Tokenizer:
    return tokenizers.make(config.Tokenizer(kind=kind, **fields), lambda: TEXTS)  # pyright: ignore


def random_text(rng: random.Random) -> str:
    """Words, white space and any code points but surrogates, lengths 0 to 40."""
    draws = (
        lambda: rng.choice("aeiou thesandline \n\t"),
        lambda: chr(rng.randrange(0x80)),
        lambda: chr(rng.randrange(0xD800)),
        lambda: chr(rng.randrange(0xE000, 0x110000)),
        lambda: rng.choice(ODD),
    )
    return "".join(rng.choice(draws)() for _ in range(rng.randrange(40)))


def check_round_trips(tokenizer: tokenizers.Tokenizer, count: int = 300) -> None:
    rng = random.Random(0)
    for text in [*TEXTS, *ODD, *(random_text(rng) for _ in range(count))]:
        ids = tokenizer.encode(text)
        assert ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer)
        assert tokenizer.decode(ids) == text
        assert tokenizer.eod not in ids
        assert not len(ids) or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    together = tokenizer.encode_batch(ODD)
    assert [ids.tolist() for ids in together] == [tokenizer.encode(t).tolist() for t in ODD]


@pytest.mark.parametrize("kind, fields", [("bytes", {}), ("bpe", {"vocab_size": 420})])
def test_any_unicode_text_comes_back(kind: str, fields: dict) -> None:
    check_round_trips(make(kind, **fields))


def test_chars_are_the_sorted_characters_of_the_texts_then_unknown_then_end() -> None:
    tokenizer = tokenizers.make(config.Tokenizer(), lambda: ["cab", "bé"])
    assert tokenizer.vocab_size == 6 and tokenizer.eod == 5
    assert tokenizer.encode("abcé").tolist() == [0, 1, 2, 3]
    assert tokenizer.encode("aZ😀b").tolist() == [0, 4, 4, 1]
    assert tokenizer.decode(np.array([0, 4, 3, 5, 1])) == "a\ufffdé<|endoftext|>b"
    for text in TEXTS:
        whole = make("chars")
        assert whole.decode(whole.encode(text)) == text


def test_bytes_are_bytes() -> None:
    tokenizer = make("bytes")
    assert (tokenizer.vocab_size, tokenizer.eod) == (257, 256)
    assert tokenizer.encode("é!").tolist() == [0xC3, 0xA9, 0x21]


def test_bpe_has_the_size_asked_for_is_shorter_than_bytes_and_deterministic() -> None:
    first, second = make("bpe", vocab_size=420), make("bpe", vocab_size=420)
    assert first.vocab_size == 420
    assert first.fingerprint == second.fingerprint
    text = TEXTS[-1]
    assert len(first.encode(text)) < 0.6 * len(text.encode())


@pytest.mark.parametrize("size, right", [(259, "(\\d+) or above"), (100_000, "at most (\\d+)")])
def test_bpe_of_an_impossible_size_says_which_would_do(size: int, right: str) -> None:
    message = f"config.tokenizer.vocab_size={size}: must be {right}"
    with pytest.raises(DlmError, match=message) as error:
        make("bpe", vocab_size=size)
    assert "\n" not in str(error.value)
    limit = re.search(right, str(error.value))
    assert limit and make("bpe", vocab_size=int(limit[1])).vocab_size == int(limit[1])
    beyond = int(limit[1]) + (1 if size > 259 else -1)
    with pytest.raises(DlmError, match=f"vocab_size={beyond}: must be {right}"):
        make("bpe", vocab_size=beyond)


def test_bpe_learns_from_lines_with_the_signs_of_sentencepiece() -> None:
    texts = [f"load {i}: ▁▂▃▄▅▆▇█ of host {i}" for i in range(200)]
    for sample in (texts, ["▁▅ a"]):
        size = 300 if sample is texts else 260
        learned = tokenizers.make(config.Tokenizer(kind="bpe", vocab_size=size), lambda s=sample: s)
        assert learned.vocab_size == size
        for text in [*texts, "▅", "▁", "▅▁▅"]:
            assert learned.decode(learned.encode(text)) == text
    assert len(learned.encode("load 5")) > 3
    for empty in ([], [""], ["▅\n▁"]):
        with pytest.raises(DlmError, match="vocab_size=300: the training text has no characters"):
            tokenizers.make(config.Tokenizer(kind="bpe", vocab_size=300), lambda e=empty: e)


@pytest.mark.parametrize("size", [-1, 0, 1, 258, 1_000_001, 10**12])
def test_an_absurd_size_of_bpe_is_refused_before_the_corpus_is_read(size: int) -> None:
    c = config.base()
    c.tokenizer.kind, c.tokenizer.vocab_size = "bpe", size
    with pytest.raises(DlmError, match=rf"tokenizer.vocab_size={size}: must be .* 1,000,000"):
        config.resolve(c)


@pytest.mark.parametrize(
    "kind, fields", [("chars", {}), ("bytes", {}), ("bpe", {"vocab_size": 420})]
)
def test_a_saved_tokenizer_is_the_same_tokenizer(kind: str, fields: dict, tmp_path: Path) -> None:
    tokenizer = make(kind, **fields)
    tokenizer.save(tmp_path)
    loaded = tokenizers.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.kind, loaded.eod, loaded.vocab_size) == (
        kind,
        tokenizer.eod,
        tokenizer.vocab_size,
    )
    for text in TEXTS:
        assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_a_broken_saved_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DlmError, match=str(tmp_path)):
        tokenizers.load(tmp_path)
    make("chars").save(tmp_path)
    (tmp_path / "chars.json").write_text("[")
    with pytest.raises(DlmError, match=str(tmp_path)):
        tokenizers.load(tmp_path)


def test_fingerprints_tell_kinds_and_alphabets_apart() -> None:
    other = tokenizers.make(config.Tokenizer(), lambda: ["another alphabet"])
    prints = [make("chars"), make("bytes"), make("bpe", vocab_size=420), other]
    assert len({t.fingerprint for t in prints}) == 4


def test_special_and_foreign_ids_are_shown() -> None:
    tokenizer = make("bytes")
    ids = [72, 105, 256, 256, 999, -1, 33]
    assert tokenizer.decode(ids) == "Hi<|endoftext|><|endoftext|>\ufffd\ufffd!"
    assert tokenizer.decode([]) == ""


def test_a_given_sentencepiece_model_is_used_as_it_is(tmp_path: Path) -> None:
    trained = make("bpe", vocab_size=420)
    path = tmp_path / "words.model"
    path.write_bytes(trained.files["bpe.model"])
    loaded = make("sentencepiece", path=str(path))
    assert loaded.encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()
    path.write_bytes(b"not a model")
    with pytest.raises(DlmError, match="config.tokenizer.path=.*words.model.*sentencepiece"):
        make("sentencepiece", path=str(path))


@pytest.mark.parametrize("kind", ["sentencepiece", "hf"])
def test_a_missing_tokenizer_file_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DlmError, match="config.tokenizer.path=.*nowhere.*no such file"):
        make(kind, path=str(tmp_path / "nowhere"))


def test_a_gpt2_folder_without_its_files_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DlmError, match="vocab.json.*merges.txt"):
        make("gpt2", path=str(tmp_path))


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, as ids."""
    library = pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    return {c: i for i, c in enumerate(sorted(library.pre_tokenizers.ByteLevel.alphabet()))}


def test_gpt2_files_merge_as_they_say(tmp_path: Path) -> None:
    vocabulary = byte_alphabet()
    vocabulary |= {"th": 256, "the": 257, "<|endoftext|>": 258}
    (tmp_path / "encoder.json").write_text(json.dumps(vocabulary))
    with gzip.open(tmp_path / "vocab.bpe.gz", "wt") as file:
        file.write("#version: 0.2\nt h\nth e\n")
    tokenizer = make("gpt2", path=str(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.eod) == (259, 258)
    assert tokenizer.encode("the").tolist() == [257]
    check_round_trips(tokenizer)
    (tmp_path / "vocab.bpe.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(DlmError, match="config.tokenizer.path=.*vocab.bpe.gz"):
        make("gpt2", path=str(tmp_path))


@pytest.mark.parametrize("parallel", ["false", "true"])
def test_how_many_threads_encode_changes_nothing(tmp_path, monkeypatch, parallel) -> None:
    vocabulary = byte_alphabet() | {"th": 256, "the": 257, "<|endoftext|>": 258}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("t h\nth e\n")
    tokenizer = make("gpt2", path=str(tmp_path))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
    texts = [f"the {i} {'there ' * (i % 9)}" for i in range(500)]
    ids = tokenizer.encode_batch(texts)
    assert [i.tolist() for i in ids] == [tokenizer.encode(text).tolist() for text in texts]


def test_gpt2_without_a_path_is_fetched_and_checked(tmp_path, monkeypatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra [hf]")
    files = {"vocab.json": json.dumps(byte_alphabet() | {"<|endoftext|>": 256}), "merges.txt": ""}
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        (tmp_path / name).write_text(files[name])
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(DlmError, match="vocab.json of openai-community/gpt2 is not the GPT-2 file"):
        make("gpt2")
    digests = {n: hashlib.sha256(text.encode()).hexdigest() for n, text in files.items()}
    monkeypatch.setattr(tokenizer_files, "GPT2_FILES", digests)
    assert make("gpt2").vocab_size == 257
    assert asked[1:] == [("openai-community/gpt2", name) for name in files]
    # A store is known by the files, wherever they come from, and is found without them.
    topics = tmp_path / "a.jsonl"
    topics.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    chosen = config.Corpus(name="files", options={"paths": str(topics)})
    given = build.build(chosen, config.Tokenizer(kind="gpt2", path=str(tmp_path)), tmp_path / "s")
    monkeypatch.setattr(hub, "hf_hub_download", None)
    assert build.build(chosen, config.Tokenizer(kind="gpt2"), tmp_path / "s").path == given.path


def test_gpt2_without_a_path_or_a_network_asks_for_a_path(monkeypatch, tmp_path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra [hf]")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DlmError, match="config.tokenizer.path='': .*give a folder with vocab.json"):
        make("gpt2")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(DlmError, match=r"pip install 'dlm\[hf\]'"):
        make("gpt2")


def test_a_tokenizer_json_brings_its_own_end(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    made = library.Tokenizer(library.models.BPE(vocab=byte_alphabet(), merges=[]))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    without = make("hf", path=str(path))
    assert (without.vocab_size, without.eod) == (257, 256)
    check_round_trips(without, count=100)
    made.add_special_tokens(["</s>"])
    made.save(str(path))
    with_end = make("hf", path=str(path))
    assert (with_end.vocab_size, with_end.eod) == (257, 256)
    assert with_end.fingerprint != without.fingerprint
    assert with_end.decode(with_end.encode("a b")) == "a b"


def json_of(library, tmp_path: Path, tokenizer, **changes) -> str:
    """The path of a tokenizer.json with some of its top fields changed."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer.to_str()) | changes))
    return str(path)


def byte_level(library, **model):
    made = library.Tokenizer(library.models.BPE(vocab=byte_alphabet(), merges=[], **model))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    return made


def test_a_tokenizer_json_neither_cuts_nor_pads_nor_adds_nor_draws(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    plain = make("hf", path=json_of(library, tmp_path, byte_level(library)))
    expected = [ids.tolist() for ids in plain.encode_batch(TEXTS)]
    template = library.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    faulty = byte_level(library, dropout=0.9)
    faulty.post_processor = template
    faulty.enable_truncation(7)
    faulty.enable_padding(length=4000)
    loaded = make("hf", path=json_of(library, tmp_path, faulty))
    assert [ids.tolist() for ids in loaded.encode_batch(TEXTS)] == expected
    assert [loaded.encode(text).tolist() for text in TEXTS] == expected
    longest = byte_level(library)
    longest.enable_padding()
    loaded = make("hf", path=json_of(library, tmp_path, longest))
    assert [ids.tolist() for ids in loaded.encode_batch(TEXTS)] == expected
    merging = library.Tokenizer(
        library.models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")], dropout=0.5)
    )
    loaded = make("hf", path=json_of(library, tmp_path, merging))
    assert {tuple(loaded.encode("ab" * 20).tolist()) for _ in range(9)} == {(2,) * 20}


def test_a_model_without_an_unknown_token_says_what_it_lacks(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    models = library.models
    for model in (
        models.Unigram(vocab=[("a", -1.0), ("b", -2.0)], unk_id=None),
        models.WordLevel(vocab={"a": 0}, unk_token="[UNK]"),
        models.WordPiece(vocab={"a": 0}, unk_token="[UNK]"),
    ):
        loaded = make("hf", path=json_of(library, tmp_path, library.Tokenizer(model)))
        with pytest.raises(DlmError, match="(?i)kind='hf': .*unk.*no token for unknown") as error:
            loaded.encode("c")
        assert "\n" not in str(error.value)
    path = tmp_path / "tokenizer.json"
    path.write_text(library.Tokenizer(models.BPE(vocab={}, merges=[])).to_str())
    with pytest.raises(DlmError, match="the tokenizer.json has an empty vocabulary"):
        make("hf", path=str(path))


def test_what_a_tokenizer_loses_is_measured(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the extra [hf]")

    def trip(tokenizer: tokenizers.Tokenizer, *texts: str) -> round_trip.RoundTrip:
        sizes = np.array([len(text.encode()) for text in texts])
        return round_trip.measure(tokenizer, sizes, lambda i: texts[i])

    assert trip(make("bytes"), *TEXTS, *ODD).altered == 0
    assert trip(make("bpe", vocab_size=420), *TEXTS, *ODD).altered == 0
    whole = byte_level(library)
    assert trip(make("hf", path=json_of(library, tmp_path, whole)), *TEXTS).altered == 0
    whole.normalizer = library.normalizers.Lowercase()
    lower = make("hf", path=json_of(library, tmp_path, whole))
    assert trip(lower, "ab cD", "ab") == round_trip.RoundTrip(2, 1, 1 / 7, "D")
    letters = library.Tokenizer(library.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    letters.decoder = library.decoders.Fuse()
    some = make("hf", path=json_of(library, tmp_path, letters))
    assert trip(some, "abé", "ab") == round_trip.RoundTrip(2, 1, 1 / 5, "é")  # é has no ids at all
    few = tokenizers.make(config.Tokenizer(kind="chars"), lambda: ["ab"])
    assert trip(few, "ab", "cab", "cc") == round_trip.RoundTrip(3, 2, 3 / 7, "c")
    assert trip(few) == round_trip.RoundTrip(0, 0, 0.0)
    many = round_trip.measure(few, np.full(10**6, 10**4), lambda i: "ab")
    assert 300 < many.texts < 600  # about SAMPLE bytes of them


def test_a_missing_extra_says_how_to_install_it(monkeypatch, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DlmError, match=r"pip install 'dlm\[hf\]'"):
        make("hf", path=str(path))


def test_the_published_gpt2_vocabulary() -> None:
    if not GIVEN.is_dir():
        pytest.skip(f"{GIVEN} is not there")
    pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    tokenizer = make("gpt2", path=str(GIVEN))
    same = config.Tokenizer(kind="gpt2", path=str(GIVEN))
    assert tokenizer_files.digests(same) == tokenizer_files.GPT2_FILES
    assert (tokenizer.vocab_size, tokenizer.eod) == (50257, 50256)
    # The example of the GPT-2 release: two tokens, and the space belongs to the second.
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    check_round_trips(tokenizer, count=100)
