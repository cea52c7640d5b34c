"""Bad files, and the commands that meet them: what the line of each says (`test_bad_inputs.py`).

Words are split as a shell does; LONG, DEEP and DIGITS stand for what would not fit a line here.
"""

from __future__ import annotations

import json
import shlex

LONG, DEEP, DIGITS = "x" * 5000, "[" * 200_000, "9" * 5000
LONGER = {"LONG": LONG, "DEEP": DEEP, "DIGITS": DIGITS}
Cases = list[tuple[str, str]]  # a command, and what its line says

EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
import tiny
def get_config(scale):
    return tiny.tiny_experiment()
"""
OBJECTIVE = """
import sys
from dlm.config import Family
FAMILY = Family(True, 1, 0, "causal", "formula", "source")
"""
FILES: dict[str, str | bytes] = {
    # experiments: the code that follows EXPERIMENT
    "exits.py": "sys.exit(0)",
    "exits_late.py": "def sweep(scale):\n    yield {}\n    sys.exit(0)",
    "interrupts.py": "def sweep(scale):\n    raise KeyboardInterrupt",
    "endless.py": "def sweep(scale):\n    while True:\n        yield {}",
    "no_runs.py": "def sweep(scale):\n    return []",
    "sweep_is_3.py": "sweep = 3",
    "key_is_3.py": "def sweep(scale):\n    yield {3: 4}",
    "an_object.py": "def sweep(scale):\n    yield {'corpus.options.documents': object()}",
    "huge.py": "def sweep(scale):\n    yield {'train.seed': 2**5000}",
    "unknown.py": "def sweep(scale):\n    yield {'model.layer': 2}",
    "no_words.py": "class Bad(Exception):\n    def __str__(self):\n        return 1 / 0\nraise Bad",
    "recurses.py": "def get_config(scale):\n    return get_config(scale)",
    "no_scale.py": "def get_config():\n    pass",
    "get_is_3.py": "get_config = 3",
    "a_dict.py": "def get_config(scale):\n    return {}",
    "other_config.py": "import ml_collections\n"
    "def get_config(scale):\n    return ml_collections.ConfigDict({'model': 3})",
    "frozen.py": "import ml_collections\n"
    "def get_config(scale):\n    return ml_collections.FrozenConfigDict(tiny.tiny_experiment())",
    "group_is_3.py": "def get_config(scale):\n    c = tiny.tiny_experiment().unlock()\n"
    "    with c.ignore_type():\n        c.corpus.options = 3\n    return c",
    "half_config.py": "def get_config(scale):\n    c = tiny.tiny_experiment().unlock()\n"
    "    del c.model.layers\n    return c",
    # objectives: the code that follows OBJECTIVE
    "o_exits.py": "sys.exit(0)",
    "o_interrupts.py": "raise KeyboardInterrupt",
    "o_args.py": "def make(a):\n    pass",
    "o_keyword.py": "def make(a, b, *, c):\n    pass",
    "o_none.py": "def make(a, b):\n    pass",
    "o_make_exits.py": "def make(a, b):\n    sys.exit(0)",
    "o_recurses.py": "def make(a, b):\n    return make(a, b)",
    "o_loss_args.py": "def make(a, b):\n    f = lambda x: x\n    return f, f, f",
    "o_loss_exits.py": "def make(a, b):\n    f = lambda *a, **k: sys.exit(0)\n    return f, f, f",
    "o_no_make.py": "pass",
    "o_family_3.py": "FAMILY = 3\ndef make(a, b):\n    pass",
    # documents, ids, tables, tokenizers, laws
    "nul.py": b"a\0b",
    "latin.py": b"x = 'caf\xe9'",
    "deep.jsonl": DEEP + "\n",
    "deep.json": DEEP,
    "digits.jsonl": f'{{"text": {DIGITS}}}\n',
    "digits_ids.jsonl": f'{{"ids": [{DIGITS}]}}\n',
    "float_ids.jsonl": '{"ids": [1.5]}\n',
    "number.jsonl": '{"text": 3}\n',
    "no_field.jsonl": '{"body": "x"}\n',
    "half.json": '[{"text": "a"},',
    "rubbish.json": bytes(range(128, 256)),
    "rubbish.txt": bytes(range(128, 256)),
    "rubbish.txt.gz": bytes(range(256)),
    "rubbish.txt.zst": bytes(range(256)),
    "rubbish.csv": bytes(range(256)),
    "rubbish.parquet": b"PAR1" + bytes(range(256)),
    "rubbish.arrow": bytes(range(256)),
    "rubbish.npz": b"PK\x03\x04" + bytes(range(256)),
    "rubbish.npy": b"\x93NUMPY\x01\x00" + bytes(range(256)),
    "empty.txt": "",
    "empty.csv": "",
    "empty.json": "",
    "titles.csv": "params,tokens,unique_tokens,loss\n",
    "text.csv": "name,body\na,b\n",
    "no_loss.csv": "params,tokens\n1e6,1e7\n",
    "words.csv": "params,tokens,loss\nmany,1e7,3\n",
    "minus.csv": "params,tokens,loss\n-5,1e7,3\n",
    "ppl.csv": "params,tokens,loss\n1e6,1e7,2000\n2e6,1e7,1900\n",
    "ragged.csv": "params,tokens,loss\n1e6,1e7,3,4\n",
    "quote.csv": 'params,tokens,loss\n"1e6,1e7,3\n',
    "status.csv": "params,tokens,loss,status\n1e6,1e7,3,perhaps\n",
    "twice.csv": "loss,loss,params,tokens\n3,3,1e6,1e7\n",
    "epochs.csv": "params,tokens,unique_tokens,loss\n1e6,1e6,1e7,3\n",
    "prose.jsonl": "".join(
        json.dumps({"text": f"Note {i}: {'abcdefghij'[i % 10] * (i % 7)} and {i * i} more."}) + "\n"
        for i in range(100)
    ),
}
LAW = {"E": 1.8, "A": 290, "B": 400, "alpha": 0.34, "beta": 0.28, "R_D": 15.4, "R_N": 5.3}


def table(family: str = "ar", params: float = 1.0, unique: float = 1.0) -> str:
    """A table of 24 runs; every other row has its counts over `params` and `unique`."""
    rows = ["params,tokens,unique_tokens,loss,family"]
    for n in (1e7, 3e7, 1e8, 3e8):
        for u in (1e8, 3e8):
            for epochs in (1, 4, 16):
                loss = 1.7 + 300 / n**0.34 + 400 / (u * epochs**0.5) ** 0.28
                odd = len(rows) % 2
                n_told, u_told = n / params**odd, u / unique**odd
                rows.append(f"{n_told:g},{u * epochs:g},{u_told:g},{loss:.5f},{family}")
    return "\n".join(rows) + "\n"


def law(**changes: object) -> dict[str, object]:
    """A file of one law, with fields or coefficients (E, A, ...) changed; None leaves one out."""
    values = {k: v for k, v in (LAW | changes).items() if k in LAW and v is not None}
    fields = {k: v for k, v in changes.items() if k not in LAW}
    return {"ar": {"law": "data-constrained", "coefficients": values} | fields}


RANGES = dict(runs=9, typical_params=1e8, params=[1, 2], tokens=[1, 2], unique_tokens=[1, 2],
              epochs=[1, 2], flops=[1, 2])  # fmt: skip
LAWS: dict[str, object] = {
    "laws": law() | {"masked": law()["ar"]},
    "l_deep": '{"ar": ' + DEEP,
    "l_empty": {},
    "l_three": 3,
    "l_list": [3],
    "l_no_coefficients": {"ar": {"law": "data-constrained"}},
    "l_law": law(law="zzz"),
    "l_law_list": law(law=[]),
    "l_word": law(E="x"),
    "l_missing": law(R_D=None),
    "l_zero": law(E=0),
    "l_nan": law(E=float("nan")),
    "l_infinite": law(A=float("inf")),
    "l_huge": law(E=1e300),
    "l_digits": '{"ar": {"law": "one-size", "coefficients": {"E": ' + "9" * 400 + "}}}",
    "l_true": law(E=True),
    "l_share": law(share="abc"),
    "l_share_2": law(share=2),
    "l_fixed": law(fixed=["zzz"]),
    "l_fixed_3": law(fixed=3),
    "l_samples": law(samples={name: ["x"] for name in LAW}),
    "l_samples_minus": law(samples={name: [-1] for name in LAW}),
    "l_amplitude": law(A=1e300),
    "l_nameless": {"": law()["ar"]},
    "l_samples_list": law(samples=[1]),
    "l_samples_name": law(samples={"zzz": [1]}),
    "l_samples_odd": law(samples={name: [1] for name in LAW} | {"A": [1, 2]}),
    "l_ranges": law(ranges=3),
    "l_ranges_one": law(ranges=RANGES | {"params": [1]}),
    "l_ranges_order": law(ranges=RANGES | {"tokens": [2, 1]}),
    "l_ranges_word": law(ranges=RANGES | {"runs": "x"}),
}

EXPERIMENTS: Cases = [
    ("pipe.py", "pipe.py: is a pipe"),
    ("zero.py", "zero.py: is a device"),
    ("/dev/zero", "/dev/zero: is a device"),
    ("socket.csv", "socket.csv: is a socket"),
    ("folder.py", "folder.py: is a folder"),
    ("loop.py", "loop.py: cannot be read: Too many levels"),
    ("good.py/x.py", "good.py/x.py: cannot be read: Not a directory"),
    ("LONG", "File name too long"),
    ("nothing.py", "nothing.py: no such experiment file"),
    ("good.csv", "good.csv: not a Python file"),
    ("'a\nb.py'", "a\\nb.py: no such experiment file"),
    ("nul.py", "nul.py: SyntaxError: source code string cannot contain null bytes"),
    ("latin.py", "latin.py:1: SyntaxError: (unicode error)"),
    ("exits.py", "exits.py:7: SystemExit: 0"),
    ("exits_late.py", "exits_late.py:9: SystemExit: 0"),
    ("interrupts.py", "KeyboardInterrupt: no message, at `raise KeyboardInterrupt`"),
    ("endless.py", "endless.py: sweep yields more than 10,000 runs; does it end?"),
    ("no_runs.py", "sweep must yield a dict of overrides for each run, at least one"),
    ("sweep_is_3.py", "TypeError: 'int' object is not callable"),
    ("key_is_3.py", "sweep yields the key 3"),
    ("an_object.py", "must be a number, a word, true, false"),
    ("huge.py", "config.train.seed=1412467032"),
    ("unknown.py", "config.model.layer: no such key; did you mean model.layers?"),
    ("no_words.py", "Bad: no message, at `raise Bad`"),
    ("recurses.py", "recurses.py:8: RecursionError"),
    ("no_scale.py", "TypeError: get_config() takes 0 positional arguments but 1 was given"),
    ("get_is_3.py", "has no get_config(scale)"),
    ("a_dict.py", "get_config must return the ConfigDict of dlm.config.base()"),
    ("other_config.py", "the config lacks corpus; get_config must begin with base()"),
    ("frozen.py", "must return a ConfigDict that can be changed"),
    ("group_is_3.py", "the config lacks corpus.options"),
    ("half_config.py", "the config lacks model.layers"),
]  # fmt: skip
OF_RUN: Cases = [
    ("--jobs -1", "--jobs=-1: must be 0 to 1,024"),
    ("--jobs 100000000", "must be 0 to 1,024"),
    ("--jobs DIGITS", "must be a whole number"),
    ("--jobs ''", "--jobs=: must be a whole number"),
    ("--scale zzz", "--scale=zzz: must be one of laptop, smoke, gpu, paper"),
    ("--executor zzz", "--executor=zzz: must be local or slurm"),
    ("--slurm time=1", "only with --executor slurm"),
    ("--executor slurm", "--slurm time=: must be a job's time limit"),
    ("--executor slurm --slurm time", "must be KEY=VALUE"),
    ("--executor slurm --slurm =1", "must be KEY=VALUE"),
    ("--executor slurm --slurm time=nan", "time=nan: must be"),
    ("--executor slurm --slurm time=-1", "time=-1: must be"),
    ("--executor slurm --slurm time=9 nodes=2", "'nodes=2': one word more"),
    ("--executor slurm --slurm time=9 --slurm nodes=2", "nodes=2: must be 1"),
    ("--distributed --jobs 2", "goes without --jobs"),
    ("--workdir good.csv", "--workdir=good.csv: is a file; must be a folder"),
    ("--workdir good.csv/x", "--workdir=good.csv/x: cannot be read: Not a directory"),
    ("--workdir pipe.txt", "--workdir=pipe.txt: is a pipe; must be a folder"),
    ("--workdir LONG", "File name too long"),
    ("--workdir /proc/x", "--workdir=/proc/x: cannot write there"),
    ("--workdir gs://", "gs://: names no bucket"),
    ("--workdir s3:///x", "s3:///x: names no bucket"),
    ("--dry_run", "--dry_run: no such option; did you mean --dry-run?"),
]
OVERRIDES: Cases = [
    ("model=3", "config.model: is a group of attention, dropout"),
    ("model.dropout=0.1", "config.model.dropout: is a group of attention, embedding"),
    ("corpus.options=3", "config.corpus.options: is a group of documents, length"),
    ("model.layers=DIGITS", "of 5002 characters: must be an integer"),
    ("model.layers=0x" + "f" * 5000, "an integer of thousands of digits: must be"),
    ("model.layers=DEEP", "must be an integer"),
    ("model.layers=" + "-" * 100_000 + "1", "must be an integer"),
    ("model.layers=two", "config.model.layers='two': must be an integer"),
    ("model.layers=1.5", "config.model.layers=1.5: must be an integer"),
    ("model.layers=None", "config.model.layers=None: must be an integer"),
    ("model.tied=3", "config.model.tied=3: must be true or false"),
    ("train.seed=True", "config.train.seed=True: must be an integer"),
    ("optimizer.lr=nan", "config.optimizer.lr='nan': must be a number"),
    ("optimizer.lr=[1]", "config.optimizer.lr=[1]: must be a number"),
    ("corpus.name=3", "config.corpus.name=3: must be a word"),
    ("corpus.name=LONG", "must be one of stdlib, digits"),
    ("corpus.name=topic", "did you mean topics?"),
    ("LONG=3", "no such key"),
    ("=3", "an override reads --config.GROUP.FIELD=VALUE"),
    ("model.layers", "an override reads --config.GROUP.FIELD=VALUE"),
    ("objective.file=pipe.py", "must be a Python file with FAMILY and make; it is a pipe"),
    ("objective.file=zero.py", "it is a device"),
    ("objective.file=folder.py", "it is a folder"),
    ("objective.file=loop.py", "it cannot be read: Too many levels"),
    ("objective.file=LONG", "it cannot be read: File name too long"),
    ("objective.file='\"a\\0b\"'", "it cannot be read: "),
    ("objective.file=nothing.py", "objective.file='nothing.py': no such file"),
]
SYNTHETIC: Cases = [
    ("topics documents=0", "documents=0: must be from 2 to 100,000,000"),
    ("topics documents=abc", "documents='abc': must be an integer"),
    ("topics documents=None", "documents=None: must be an integer"),
    ("topics documents=[1]", "documents=[1]: must be an integer"),
    ("topics documents=1000000000000", "must be from 2 to 100,000,000"),
    ("topics vocabulary=1000000000", "must be from 2 to 100,000"),
    ("topics seed=-1", "seed=-1: must be from 0 to"),
    ("topics topic=3", "topics has no such option"),
    ("topics documents.x=3", "no such key; did you mean corpus.options.documents?"),
    ("markov vocabulary=1", "vocabulary=1: must be from 2 to 10,000"),
    ("markov vocabulary=1000000", "must be from 2 to 10,000"),
    ("markov length=1.5", "length=1.5: must be an integer"),
    ("hmm states=1", "states=1: must be from 2 to 1,000"),
    ("pcfg length=48", "length=48: must be a power of two"),
    ("pcfg symbols=1000", "symbols=1000: must be from 2 to 100"),
    ("copies length=3", "length=3: must be even for copies"),
    ("copies wrong=abc", "wrong='abc': must be a number"),
    ("copies wrong=1", "wrong=1: must be at least 0 and below 1"),
    ("parity group=7", "group=7: must be a divisor of length=64"),
    ("s5 length=3", "length=3: must be even for s5"),
    ("addition digits=0", "digits=0: must be from 1 to 1,000"),
    ("digits side=8", "digits has no such option; it has none"),
    ("stdlib paths=x", "stdlib has no such option; it has none"),
]
OF_FILES: Cases = [
    ("paths=None", "paths=None: must be a glob or a list of globs"),
    ("paths=3", "paths=3: must be a glob"),
    ("paths=", "paths='': must be a glob"),
    ("paths=[]", "paths=[]: must be a glob"),
    ("paths=[1]", "paths=[1]: must be a glob"),
    ("paths=True", "paths=True: must be a glob"),
    ("paths=pipe.txt", "pipe.txt: is a pipe; must be a file"),
    ("paths=zero.txt", "zero.txt: is a device; must be a file"),
    ("paths=/dev/zero", "/dev/zero: is a device; must be a file"),
    ("paths=socket.csv", "socket.csv: is a socket; must be a file"),
    ("paths=pipe.*", "pipe.csv: is a pipe; must be a file"),
    ("paths=folder.txt", "folder.txt: is a folder; name its files"),
    ("paths=nothing.txt", "'nothing.txt': no file matches"),
    ("paths=LONG", "must be at most 4,096 characters"),
    ("paths=DEEP", "must be at most 4,096 characters"),
    ("paths=deep.jsonl", "deep.jsonl:1: not JSON: brackets are nested too deep"),
    ("paths=deep.json", "deep.json: not a JSON array: element 1: brackets are nested too deep"),
    ("paths=digits.jsonl", "digits.jsonl:1: not JSON: an integer has more than 4,300 digits"),
    ("paths=number.jsonl", "'text' must be text, not 3; name another field"),
    ("paths=no_field.jsonl", "has no field 'text'; there are body"),
    ("paths=half.json", "half.json: not a JSON array: element 2"),
    ("paths=rubbish.json", "rubbish.json: not UTF-8 at byte 0"),
    ("paths=rubbish.txt", "rubbish.txt: not UTF-8 at byte 0"),
    ("paths=rubbish.txt.gz", "not a whole .gz file"),
    ("paths=rubbish.txt.zst", "rubbish.txt.zst: "),
    ("paths=rubbish.csv", "rubbish.csv: "),
    ("paths=rubbish.parquet", "not a whole .parquet file"),
    ("paths=rubbish.arrow", "not a whole .arrow file"),
    ("paths=text.csv", "text.csv: no column 'text'; there are name, body"),
    ("paths=empty.json", "empty.json: is empty"),
    ("paths=empty.txt", "1 of 1 rows have no text"),
    ("paths=good.npz", "good.npz: must end in .txt, .md"),
    ("paths=prose.jsonl text_field=3", "text_field=3: must be a word"),
    ("paths=prose.jsonl without_text=None", "without_text=None: must be a number"),
    ("paths=prose.jsonl without_text=[]", "without_text=[]: must be a number"),
    ("paths=prose.jsonl without_text=1e999", "without_text=inf: must be from 0 to 1"),
    ("path=prose.jsonl", "did you mean paths?"),
]
OF_IDS: Cases = [
    ("paths=rubbish.npz", "not a readable .npz file of numbers: File is not a zip file"),
    ("paths=rubbish.npy", "not a readable .npy file of numbers"),
    ("paths=objects.npz", "Object arrays cannot be loaded"),
    ("paths=objects.npy", "Object arrays cannot be loaded"),
    ("paths=cut.npz", "cut.npz: not a readable .npz file"),
    ("paths=flipped.npz", "flipped.npz: not a readable .npz file"),
    ("paths=floats.npy", "float64 of shape (3,); must be whole numbers"),
    ("paths=cube.npy", "int64 of shape (2, 2, 2); must be whole numbers"),
    ("paths=digits_ids.jsonl", "an integer has more than 4,300 digits"),
    ("paths=float_ids.jsonl", "float_ids.jsonl:1: must be a list of whole numbers"),
    ("paths=no_field.jsonl", "no field 'ids'; there are body"),
    ("paths=deep.jsonl", "brackets are nested too deep"),
    ("paths=good.npz vocab_size=10", "ids 10 to 19, must be 0 to 9"),
    ("paths=good.npz vocab_size=1.5", "vocab_size=1.5: must be an integer"),
    ("paths=good.npz vocab_size=10000000000", "must be from 2 to 2,147,483,647"),
    ("paths=good.npz field=3", "field=3: must be a word"),
]
TOKENIZERS: Cases = [
    ("kind=zzz", "tokenizer.kind='zzz': must be one of chars, bytes"),
    ("kind=bpe", "tokenizer.vocab_size=0: must be 259"),
    ("kind=bpe vocab_size=1000000000000", "to 1,000,000"),
    ("kind=bpe vocab_size=x", "tokenizer.vocab_size='x': must be an integer"),
    ("kind=bpe vocab_size=260", "tokenizer.vocab_size=260: must be 2"),
    ("kind=bpe vocab_size=900000", "tokenizer.vocab_size=900000: must be at most"),
    ("kind=sentencepiece", "tokenizer.path='': must be a path"),
    ("kind=sentencepiece path=pipe.model", "must be a SentencePiece .model file: is a pipe"),
    ("kind=sentencepiece path=zero.model", "must be a SentencePiece .model file: is a device"),
    ("kind=sentencepiece path=folder.model", "must be a SentencePiece .model file: is a folder"),
    ("kind=sentencepiece path=loop.model", "must be a SentencePiece .model file: cannot be read"),
    ("kind=sentencepiece path=nothing", "must be a SentencePiece .model file: no such file"),
    ("kind=sentencepiece path=~nobody/x", "must be a SentencePiece .model file: no such file"),
    ("kind=sentencepiece path=prose.jsonl", "not a tokenizer of kind sentencepiece"),
    ("kind=sentencepiece path=empty.txt", "not a tokenizer of kind sentencepiece"),
    ("kind=hf path=pipe.json", "must be a Hugging Face tokenizer.json: is a pipe"),
    ("kind=hf path=LONG", "must be a Hugging Face tokenizer.json: cannot be read"),
    ("kind=gpt2 path=prose.jsonl", "must be a folder with vocab.json"),
    ("kind=gpt2 path=folder.txt", "found no vocab.json"),
    ("kind=gpt2 path=LONG", "must be a folder with vocab.json"),
]
OBJECTIVES: Cases = [
    ("pipe.py", "it is a pipe"),
    ("zero.py", "it is a device"),
    ("nothing.py", "no such file"),
    ("nul.py", "nul.py: SyntaxError"),
    ("latin.py", "latin.py:1: SyntaxError"),
    ("o_exits.py", "o_exits.py:5: SystemExit: 0"),
    ("o_interrupts.py", "KeyboardInterrupt: no message, at `raise KeyboardInterrupt`"),
    ("o_args.py", "its make must take (objective, vocab_size); (a) does not"),
    ("o_keyword.py", "its make must take (objective, vocab_size); (a, b, *, c) does not"),
    ("o_none.py", "whose make returns (loss, nll, sample), not a NoneType"),
    ("o_make_exits.py", "o_make_exits.py:6: SystemExit: 0"),
    ("o_recurses.py", "o_recurses.py:6: RecursionError"),
    ("o_loss_args.py", "its loss must take (apply, params, tokens, key, step=None)"),
    ("o_loss_exits.py", "o_loss_exits.py:6: SystemExit: 0"),
    ("o_no_make.py", "a file that defines make"),
    ("o_family_3.py", "whose FAMILY is a dlm.config.Family, not a int"),
    ("ar --config.objective.name=zzz", "config.objective.name='zzz': must be one of"),
    ("ar --config.objective.file=pipe.py", "it is a pipe"),
    ("ar --config.model.layers=x", "config.model.layers='x': must be an integer"),
]
TABLES: Cases = [
    ("''", "table=: must be a path"),
    ("pipe.csv", "pipe.csv: is a pipe; must be a CSV"),
    ("zero.csv", "zero.csv: is a device; must be a CSV"),
    ("socket.csv", "socket.csv: is a socket; must be a CSV"),
    ("loop.csv", "loop.csv: cannot be read: Too many levels"),
    ("folder.csv", "folder.csv: no run here"),
    ("LONG", "File name too long"),
    ("good.csv/x", "cannot be read: Not a directory"),
    ("rubbish.csv", "rubbish.csv: not a text file"),
    ("rubbish.parquet", "rubbish.parquet: not a Parquet file, or damaged"),
    ("rubbish.txt.gz", "rubbish.txt.gz: "),
    ("rubbish.npz", "is a zip archive or an Excel workbook"),
    ("rubbish.arrow", "rubbish.arrow: "),
    ("deep.json", "deep.json: is JSON"),
    ("empty.csv", "empty.csv: is empty"),
    ("titles.csv", "titles.csv: has no rows"),
    ("text.csv", "text.csv: no column params"),
    ("no_loss.csv", "no_loss.csv: no column loss"),
    ("words.csv", "row 2: params is 'many', no number"),
    ("minus.csv", "params=-5: must be a positive number"),
    ("ppl.csv", "loss=2000: must be above 0 and below 1000"),
    ("ragged.csv", "row 2: has more fields than the titles"),
    ("quote.csv", "quote.csv, line 2: "),
    ("status.csv", "status is 'perhaps' in 1 row"),
    ("twice.csv", "two columns are called 'loss'"),
    ("epochs.csv", "0.1 epochs (tokens=1e+06 below unique_tokens=1e+07)"),
    ("params.csv", "params runs from 10 to 3e+08, with none between 300 and 1e+07: mixed units?"),
    ("unique.csv", "unique_tokens runs from 100 to 3e+08, with none between 300 and 1e+08: mixed"),
]
OF_FIT: Cases = [
    ("--law zzz", "--law=zzz: must be one of chinchilla"),
    ("--law ''", "--law=: must be one of chinchilla"),
    ("--robust-loss zzz", "--robust-loss=zzz: must be one of huber, lad, gaussian"),
    ("--stages zzz", "--stages=zzz: must be one of auto, two, joint"),
    ("--points zzz", "--points=zzz: must be one of best, last, curve"),
    ("--points last", "points='last' is for folders and tables of dlm's own runs"),
    ("--delta nan", "--delta=nan: must be from 1e-9 to 1e9"),
    ("--delta 0", "--delta=0: must be from 1e-9"),
    ("--delta 1e400", "--delta=1e400: must be from 1e-9"),
    ("--delta x", "--delta=x: must be a number"),
    ("--resamples -1", "--resamples=-1: must be 0 to 1,000,000"),
    ("--resamples 1000000000000", "must be 0 to 1,000,000"),
    ("--resamples 1e3", "--resamples=1e3: must be a whole number"),
    ("--seed -1", "--seed=-1: must be 0 or more"),
    (f"--seed {'9' * 30}", "must be 0 or more"),
    ("--drop-outliers nan", "--drop-outliers=nan: must be 0 (none) or more"),
    ("--drop-outliers inf", "--drop-outliers=inf: must be 0 (none) or more"),
    ("--drop-outliers -1", "--drop-outliers=-1: must be 0 (none) or more"),
    ("--family zzz", "family='zzz': good.csv has ar, masked"),
    ("--fixed E", "--fixed E: must be NAME=NUMBER"),
    ("--fixed E=", "--fixed E=: must be NAME=NUMBER"),
    ("--fixed E=nan", "fixed=E=nan: must be from 0.001 to 100"),
    ("--fixed E=1e300", "fixed=E=1e+300: must be from 0.001 to 100"),
    ("--fixed alpha=-1", "fixed=alpha=-1: must be from 0.01 to 5"),
    ("--fixed zzz=1", "fixed=zzz: data-constrained has E, A, B"),
    ("--fixed E=1 E=2", "--fixed: E is given twice"),
    ("--holdout foo=1", "holdout axis 'foo': must be one of flops, epochs"),
    ("--holdout flops", "--holdout flops: must be NAME=NUMBER"),
    ("--holdout flops=nan", "holdout flops=nan: must be a positive number"),
    ("--holdout flops=-1", "holdout flops=-1: must be a positive number"),
    ("--holdout flops=1", "--holdout flops=1: the runs go from 6e+15 to 8.64e+18"),
    ("--holdout epochs=1e9", "--holdout epochs=1e+09: the runs go from 1 to 16"),
    ("--compare-laws geometric", "--compare-laws: only with --holdout"),
    ("--compare-laws zzz", "--compare-laws=zzz: must be one of chinchilla"),
    ("--columns zzz=loss", "zzz is not one of params, tokens"),
    ("--columns loss", "must be MEANING=COLUMN"),
    ("--columns loss=zzz", "loss=zzz: no such column"),
    ("--columns loss=loss loss=loss", "loss is given twice"),
    ("--out ''", "--out=: must be a path"),
    ("--out good.csv", "--out good.csv: cannot be written (File exists)"),
    ("--out good.csv/x", "--out good.csv/x: cannot be written (Not a directory)"),
    ("--out pipe.txt", "--out pipe.txt: cannot be written (File exists)"),
    ("--out /proc/x", "--out /proc/x: cannot be written"),
]
OF_CRITICAL: Cases = [
    ("good.csv --unique-tokens nan", "--unique-tokens=nan: must be from 1 to 1e30"),
    ("good.csv --unique-tokens -1", "--unique-tokens=-1: must be from 1 to 1e30"),
    ("good.csv --unique-tokens 0", "--unique-tokens=0: must be from 1 to 1e30"),
    ("good.csv --unique-tokens 1e8 x", "--unique-tokens=x: must be a number"),
    ("good.csv --reference zzz", "family 'zzz': must be one of ar, masked"),
    ("good.csv --challenger zzz", "family 'zzz': must be one of ar, masked"),
    ("good.csv --reference ar --challenger ar", "must be another family than --reference"),
    ("good.csv --law zzz", "--law=zzz: must be one of"),
    ("good.csv --robust-loss zzz", "--robust-loss=zzz: must be one of"),
    ("good.csv --resamples -1", "--resamples=-1"),
    ("pipe.csv", "pipe.csv: is a pipe"),
    ("--laws laws.json", "--unique-tokens: give at least one number"),
    ("--laws laws.json --unique-tokens 1e8 --reference zzz", "must be one of ar, masked"),
]
OF_LAWS: Cases = [
    ("pipe.json", "pipe.json: is a pipe; must be a JSON file with laws"),
    ("zero.json", "zero.json: is a device"),
    ("folder.json", "folder.json: is a folder"),
    ("loop.json", "loop.json: cannot be read"),
    ("nothing.json", "nothing.json: no such file"),
    ("''", "--laws=: must be a path"),
    ("rubbish.json", "rubbish.json: not readable JSON"),
    ("empty.json", "empty.json: not readable JSON (Expecting value)"),
    ("good.csv", "good.csv: not readable JSON"),
    ("l_deep.json", "brackets are nested too deep"),
    ("l_empty.json", "no laws in it"),
    ("l_three.json", "no laws in it"),
    ("l_list.json", "no laws in it"),
    ("l_no_coefficients.json", "ar has no coefficients"),
    ("l_law.json", "law='zzz': must be one of chinchilla"),
    ("l_law_list.json", "law='[]': must be one of chinchilla"),
    ("l_word.json", "ar: E='x': must be a finite number above 0"),
    ("l_missing.json", "ar: R_D=None: must be a finite number above 0"),
    ("l_zero.json", "ar: E=0: must be a finite number above 0"),
    ("l_nan.json", "ar: E=nan: must be a finite number above 0"),
    ("l_infinite.json", "ar: A=inf: must be a finite number above 0"),
    ("l_huge.json", "ar: E=1e+300: must be from 0.001 to 100"),
    ("l_digits.json", "must be a finite number above 0"),
    ("l_true.json", "ar: E=True: must be a finite number above 0"),
    ("l_share.json", "ar: share='abc': must be above 0, at most 1"),
    ("l_share_2.json", "ar: share=2: must be above 0, at most 1"),
    ("l_fixed.json", "ar: fixed=['zzz']: must name coefficients"),
    ("l_fixed_3.json", "ar: fixed=3: must name coefficients"),
    ("l_samples.json", "ar: samples of E: must be a list of numbers above 0"),
    ("l_samples_minus.json", "ar: samples of E: must be a list of numbers above 0"),
    ("l_samples_list.json", "ar: samples: must be lists of numbers"),
    ("l_samples_name.json", "ar: samples: must be lists of numbers, of E, A, B"),
    ("l_amplitude.json", "ar: A=1e+300: must be from 1e-30 to 1e+60"),
    ("l_nameless.json", "a family has no name"),
    ("l_samples_odd.json", "ar: samples: must be as many of each coefficient"),
    ("l_ranges.json", "ar: ranges: runs=None: must be a number above 0"),
    ("l_ranges_one.json", "ar: ranges: params=[1]: must be two numbers above 0"),
    ("l_ranges_order.json", "ar: ranges: tokens=[2, 1]: must be two numbers above 0"),
    ("l_ranges_word.json", "ar: ranges: runs='x': must be a number above 0"),
]
OF_FIGURES: Cases = [
    ("figures good.csv --width nan", "--width=nan: must be 0 or more inches"),
    ("figures good.csv --width 0.5", "--width 0.5: must be from 1 to 60 inches"),
    ("figures good.csv --width x", "--width=x: must be a number"),
    ("figures good.csv --figure zzz", "--figure zzz: must be one of figure_1"),
    ("figures good.csv --figure ''", "--figure : must be one of figure_1"),
    ("figures good.csv --reference zzz", "family 'zzz': must be one of ar, masked"),
    ("figures good.csv --reference ar --challenger ar", "must be another family"),
    ("figures good.csv --law zzz", "--law=zzz: must be one of"),
    ("figures good.csv --unique-tokens inf", "--unique-tokens=inf: must be from 1"),
    ("figures pipe.csv", "pipe.csv: is a pipe"),
    ("figures --laws pipe.json", "pipe.json: is a pipe"),
    ("figures good.csv --out good.csv", "--out good.csv: cannot be written"),
    ("report good.csv --law zzz", "--law=zzz: must be one of"),
    ("report good.csv --width nan", "--width=nan: must be 0 or more inches"),
    ("report good.csv --figure zzz", "--figure zzz: must be one of figure_1"),
    ("report good.csv --columns zzz=1", "zzz is not one of params"),
    ("report pipe.csv", "pipe.csv: is a pipe; must be a table or a folder of runs"),
    ("report zero.csv", "zero.csv: is a device"),
    ("report socket.csv", "socket.csv: is a socket"),
    ("report empty.csv", "empty.csv: is empty"),
    ("report LONG", "File name too long"),
    ("report runs --law zzz", "--law=zzz: must be one of"),
    ("report runs --figure zzz", "--figure zzz: must be one of frontier"),
    ("report runs --columns a=b", "--columns: only with a table"),
    ("report runs --width inf", "--width=inf: must be 0 or more inches"),
    ("report gs://", "gs://: names no bucket"),
    ("runs pipe.csv", "pipe.csv: is a pipe"),
    ("runs folder.txt", "folder.txt: no run lies there"),
    ("runs --workdir good.csv", "--workdir=good.csv: is a file; must be a folder"),
    ("tensorboard --port -1", "--port=-1: must be 0 to 65,535"),
    ("tensorboard --port 1e3", "--port=1e3: must be a whole number"),
    ("tensorboard pipe.csv", "pipe.csv: is a pipe"),
]
OF_A_RUN: Cases = [
    ("evaluate nothing", "nothing: no such run"),
    ("evaluate pipe.csv", "pipe.csv: no such run"),
    ("evaluate good.csv", "good.csv: no such run"),
    ("evaluate LONG", "File name too long"),
    ("evaluate gs://", "gs://: must be a workdir, an experiment and a run"),
    ("evaluate gs://bucket", "gs://bucket: must be a workdir, an experiment and a run"),
    ("evaluate MASKED --orders -1", "--orders=-1: must be 2 to "),
    ("evaluate MASKED --orders 1000000000000", "must be 2 to "),
    ("evaluate MASKED --orders 1.5", "--orders=1.5: must be a whole number"),
    ("sample MASKED --steps 1000000000", "--steps=1000000000: must be at most 1,600 calls"),
    ("sample MASKED --steps 1e9", "--steps=1e9: must be a whole number"),
    ("sample MASKED --steps -1", "--steps=-1: must be 0 or more"),
    ("sample AR --steps 2", "--steps=2: ar runs 16 steps here; pass 16, or 0 for one per to"),
    ("sample MASKED --count 0", "--count=0: must be 1 to 1,000,000"),
    ("sample MASKED --count 10000000000", "must be 1 to 1,000,000"),
    ("sample MASKED --seed 4294967296", "must be 0 to 4,294,967,295"),
    ("sample MASKED --temperature nan", "--temperature=nan: must be 0 or more"),
    ("sample MASKED --temperature -1", "--temperature=-1: must be 0 or more"),
    ("sample MASKED --temperature inf", "--temperature=inf: must be 0 or more"),
    ("sample MASKED --top-p 0", "--top-p=0: must be above 0, at most 1"),
    ("sample MASKED --top-p 1.1", "--top-p=1.1: must be above 0, at most 1"),
    ("sample MASKED --top-p x", "--top-p=x: must be a number"),
    ("sample MASKED --entropy-budget nan", "--entropy-budget=nan: must be 0 or more, in nats"),
    ("sample MASKED --sampler zzz", "--sampler=zzz: must be one of ancestral, left-to-right"),
    ("sample MASKED --sampler ddim", "--sampler=ddim: must be one of ancestral, left-to-right"),
    ("sample MASKED --prompt hello", "topics is no text; give ids"),
    ("sample MASKED --prompt 99", "--prompt: ids must be 0 to 15"),
    ("sample MASKED --prompt -1", "--prompt: ids must be 0 to 15"),
    ("sample MASKED --prompt DIGITS", "topics is no text; give ids"),
    (f"sample MASKED --prompt '{'1 ' * 16}'", "16 tokens, must be below config.data.seq_len=16"),
    ("sample MASKED --prompt 1 --infill [MASK]", "--infill: holds a prompt already"),
    ("sample MASKED --infill [MASK*99]", "17 tokens, must be at most config.data.seq_len=16"),
    ("sample MASKED --infill [MASK*DIGITS]", "must be [MASK], or [MASK*N] for N tokens"),
    ("sample MASKED --infill [MASK*0]", "[MASK*0] must be [MASK], or [MASK*N] for N tokens"),
    ("sample MASKED --infill [mask]", "[mask] must be [MASK]"),
    ("sample TEXT --prompt \u4e2d", "the chars tokenizer of notes has no '\u4e2d'"),
    ("quality MASKED", "needs --reference-model"),
    ("quality MASKED --reference-model nothing", "nothing: no such run"),
    ("quality MASKED --reference-model TEXT", "was trained on other tokens"),
    ("quality MASKED --reference-model AR --steps 0", "--steps=0: must be 1 or more"),
    ("quality MASKED --reference-model AR --steps 4 1000000000", "must be at most 1,600 calls"),
    ("quality MASKED --reference-model AR --count 10000000", "must be 1 to 1,000,000"),
    ("quality MASKED --reference-model AR --top-p nan", "--top-p=nan: must be above 0"),
    ("spectrum nothing", "nothing: no such run"),
    ("spectrum TEXT", "was trained on text (notes); must be on images"),
    ("spectrum AR --count 0", "--count=0: must be 1 to 1,000,000"),
    ("spectrum AR --out good.csv", "--out good.csv: cannot be written (File exists)"),
    ("spectrum AR --out pipe.txt", "--out pipe.txt: cannot be written (File exists)"),
    ("spectrum AR --out ''", "--out=: must be a path"),
]
OF_PLAN: Cases = [  # after a budget that is right
    ("--laws ''", "--laws=: must be a path"),
    ("--laws zzz", "laws='zzz': must be paper, muennighoff, a JSON file"),
    ("--laws LONG", "File name too long"),
    ("--laws pipe.csv", "pipe.csv: is a pipe"),
    ("--laws empty.csv", "empty.csv: is empty"),
    ("--laws l_empty.json", "no laws in it"),
    ("--laws l_nan.json", "ar: E=nan: must be a finite number above 0"),
    ("--laws folder.txt", "folder.txt: no run here; must be a folder of runs"),
    ("--law zzz", "--law=zzz: must be one of auto, chinchilla"),
    ("--points zzz", "--points=zzz: must be one of best"),
    ("--columns zzz=1", "zzz is not one of params"),
    ("--families ''", "families=: has no law; must be one of ar, masked"),
    ("--families zzz", "families=zzz: has no law; must be one of ar, masked"),
    ("--resamples -1", "--resamples=-1: must be 0 to 100,000"),
    ("--out good.csv", "--out good.csv: cannot be written"),
]
OF_BUDGETS: Cases = [
    ("", "budget: give one of --hours (with --device), --flops, or --loss"),
    ("--flops 2e20 --loss 3", "give one of --hours"),
    ("--flops nan", "--flops=nan: must be above 0"),
    ("--flops 20", "flops=20: must be a raw count from 1e+06"),
    ("--flops 1e300", "flops=1e+300: must be a raw count"),
    ("--hours 3", "--hours=3: needs a device"),
    ("--hours 1e9 --device h100", "hours=1e+09: must be above 0, at most 1e+06"),
    ("--hours 3 --device zzz", "device='zzz': must be here"),
    ("--hours 3 --device nan", "device='nan': must be here"),
    ("--hours 3 --device 3", "--device=3: must be FLOP/s of training, from 1e+08 to 1e+17"),
    ("--hours 3 --device -5", "device='-5': must be here"),
    ("--hours 3 --device h100 --devices 0", "--devices=0: must be 1 to 1,000,000"),
    ("--hours 3 --device h100 --mfu 1.5", "--mfu=1.5: must be above 0, at most 1"),
    ("--loss 40", "loss=40: must be above 0, at most 20"),
    ("--loss 0.5", "loss=0.5: no law reaches it"),
    ("--unique-tokens inf --flops 2e20", "--unique-tokens=inf: must be from 1"),
    ("--unique-tokens 100 --flops 2e20", "write 1e+08 for 100 million"),
    ("--flops 2e20 --write mine.txt", "--write mine.txt: must be a Python file"),
    ("--flops 2e20 --write good.py", "good.py: is there, and no plan wrote it"),
    ("--flops 2e20 --write good.csv/x.py", "cannot be written"),
    ("--flops 2e20 --config.model.layers=2", "--config: only with EXPERIMENT"),
]
OF_BENCHMARK: Cases = [
    ("--seconds nan", "--seconds=nan: must be above 0"),
    ("--seconds -1", "--seconds=-1: must be above 0"),
    ("--seconds x", "--seconds=x: must be a number"),
    ("--size zzz", "--size zzz: must be one of"),
    ("--size 1M --compare zzz=1", "config.zzz: no such key"),
    ("--size 1M --compare model.layers=x", "config.model.layers='x': must be an integer"),
    ("--size 1M --compare model.layers=2,zzz", "--config.zzz: an override reads"),
    ("--size 1M --out folder.json", "--out folder.json: is a folder; must be a JSON file"),
    ("--size 1M --out pipe.json", "--out pipe.json: is a pipe; must be a JSON file"),
    ("--size 1M --out good.csv/x", "cannot be written (File exists)"),
    ("--size 1M --out ''", "--out=: must be a path"),
    ("good.py --size 1M", "--size 1M: goes without an experiment"),
    ("good.py --run -1", "--run=-1: must be 0 or more"),
]


def options(prefix: str, words: str) -> str:
    """`topics documents=0` as overrides that begin with the prefix, each quoted for the shell."""
    return " ".join(shlex.quote(f"--config.{prefix}.{word}") for word in words.split(" "))


def commands() -> Cases:
    """Every case, as whole commands."""
    dry = "run good.py --dry-run "
    prose = f"{dry} --config.corpus.name=files --config.corpus.options.paths=prose.jsonl"
    ids = f"{dry} --config.corpus.name=ids"
    cases = [(f"run {words}", told) for words, told in EXPERIMENTS]
    cases += [(f"{verb} {words}", told) for verb in ("train", "corpus", "benchmark")
              for words, told in EXPERIMENTS[:3]]  # fmt: skip
    cases += [(dry + words, told) for words, told in OF_RUN]
    cases += [(dry + shlex.quote(f"--config.{word}"), told) for word, told in OVERRIDES]
    for words, told in SYNTHETIC:
        name, _, option = words.partition(" ")
        cases += [(f"{dry} --config.corpus.name={name} {options('corpus.options', option)}", told)]
    cases += [(f"{dry} --config.corpus.name=files {options('corpus.options', words)}", told)
              for words, told in OF_FILES]  # fmt: skip
    for words, told in OF_IDS:
        words = words if "vocab_size" in words else f"{words} vocab_size=100"
        cases += [(f"{ids} {options('corpus.options', words)}", told)]
    cases += [(f"{prose} {options('tokenizer', words)}", told) for words, told in TOKENIZERS]
    cases += [(f"check-objective {words}", told) for words, told in OBJECTIVES]
    cases += [(f"fit {words}", told) for words, told in TABLES]
    cases += [(f"fit good.csv {words}", told) for words, told in OF_FIT]
    cases += [(f"critical {words}", told) for words, told in OF_CRITICAL]
    cases += [(f"critical --unique-tokens 1e8 --laws {words}", told) for words, told in OF_LAWS]
    cases += [(f"benchmark {words}", told) for words, told in OF_BENCHMARK]
    asked = "plan --unique-tokens 1e8"
    cases += [(f"{asked} --flops 2e20 {words}", told) for words, told in OF_PLAN]
    cases += [(f"{asked} {words}", told) for words, told in OF_BUDGETS]
    cases += [("optimum paper --flops 0", "--flops=0: must be above 0")]
    cases += [("optimum pipe.csv --flops 1e20", "pipe.csv: is a pipe")]
    return cases + OF_FIGURES + OF_A_RUN
