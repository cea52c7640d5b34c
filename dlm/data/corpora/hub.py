"""A dataset of the Hugging Face Hub, or local files in its formats, streamed through `datasets`."""

from __future__ import annotations

import dataclasses
import gc
import glob
import os
from collections.abc import Iterator
from typing import Annotated, Any

from dlm.config.fields import Name, Range, Share
from dlm.data.corpora.files import LONGEST, state
from dlm.data.corpora.source import NoText, Source, refuse
from dlm.errors import DlmError, reason

BUILDERS = ("json", "parquet")  # of local files: .json, .jsonl, also .gz, .xz, .zst; .parquet


def hub(
    dataset: Name,
    files: Any = "",  # globs, or globs by split
    subset: str = "",
    split: Name = "train",
    validation_split: str = "",
    field: Name = "text",
    documents: Annotated[int, Range(0, 10**15)] = 0,
    validation_documents: Annotated[int, Range(0, 10**15)] = 0,
    revision: str = "",
    without_text: Share = 0.01,
) -> Source:
    """The first `documents` rows with text of a split in the dataset's own order (0: all), and likewise
    of `validation_split`; rows whose `field` is null or empty are left out and counted, up to the share
    `without_text`. Without a `validation_split`, documents are held out by a hash of their content.

    C4 is dataset="allenai/c4", subset="en", validation_split="validation"; FineWeb-Edu is
    "HuggingFaceFW/fineweb-edu", "sample-10BT". Or dataset="json" or "parquet" with `files`: globs, or
    globs by split; files are in order of their path.

    arXiv 2507.15857 takes the first K documents of C4's training split for U unique tokens: for
    U = 100M, K = 208,931, which by its authors' count are 99,952,399 tokens of GPT-2 with one end of
    document each. `documents` = 208931 gives just these, as the store ends each document once and
    keeps their order; data.unique_tokens = 0 trains on all of them, and data.subset = "documents"
    cuts a longer split at its first U tokens.

    `revision` is the dataset's; without one it is the newest when the download begins. The store's
    manifest has the one that was read in `places`. An interrupted download goes on with the file that
    it was in, of which it reads again, and drops, what it has; of the files before it, nothing.

    Raises:
      DlmError: options that contradict each other, or no such file; while reading, no package, network,
        dataset, subset, split or field, or fewer documents than asked for.
    """
    if validation_documents and not validation_split:
        refuse("validation_documents", validation_documents, "0 without a validation_split")
    if validation_split == split:
        refuse("validation_split", validation_split, f"another than split={split!r}")
    if (dataset in BUILDERS) != bool(files):
        refuse("files", files, f"given with dataset={' or '.join(BUILDERS)}, and with no other")
    paths = _find(files, [name for name in (split, validation_split) if name])

    def stream(split: str, limit: int) -> Stream:
        return Stream(dataset, subset, split, field, revision, limit, paths)

    everything = [(os.path.basename(path), path) for some in paths.values() for path in some]
    return Source(
        documents=stream(split, documents),
        validation=stream(validation_split, validation_documents) if validation_split else None,
        state=state(everything),
        without_text=without_text,
    )


@dataclasses.dataclass
class Stream:
    """(id, text) of the documents of a split from `place` on, which it moves with each of them.

    `row` counts the documents of the current `shard` (file), `documents` those of all.
    """

    dataset: str
    subset: str
    split: str
    field: str
    revision: str
    limit: int
    files: dict[str, list[str]]
    place: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"revision": "", "shard": 0, "row": 0, "documents": 0}
    )

    def __iter__(self) -> Iterator[tuple[str, str | NoText]]:
        first, count = self.place, self.place["documents"]
        if self.limit and count >= self.limit:
            return
        data = rows = None
        try:
            data, revision = self._open(first["revision"] or self.revision)
            for shard in range(first["shard"], data.num_shards):
                done = first["row"] if shard == first["shard"] else 0
                rows = data.shard(data.num_shards, shard).skip(done)
                for row, example in enumerate(rows, done + 1):
                    text = self._text(example, count + 1)
                    count += isinstance(text, str)
                    self.place = dict(revision=revision, shard=shard, row=row, documents=count)
                    label = f"{self.split}:{count}"
                    yield label if isinstance(text, str) else f"after {label}", text
                    if count == self.limit:
                        return
        except DlmError:
            raise
        except Exception as error:  # of the network, of files, of the library: many classes
            kept = f"; the {count:,} documents before it are kept, call again to go on" * bool(
                count
            )
            name = ":".join(filter(None, (self.dataset, self.subset, self.split)))
            empty = isinstance(error, StopIteration)  # of the library's reader
            words = "a file is empty" if empty else reason(error)
            raise DlmError(
                f"config.corpus.options.dataset: {name} cannot be read: {words}{kept}"
            ) from error
        finally:  # a scan of Parquet that is left half way can abort at exit: apache/arrow#45214
            data = rows = None
            gc.collect()
        if count < self.limit:
            raise DlmError(
                f"config.corpus.options: {self.limit:,} documents are asked for, and the split "
                f"{self.split!r} of {self.dataset} has {count:,}"
            )

    def _open(self, revision: str) -> tuple[Any, str]:
        """The dataset, and the commit that its revision is."""
        try:
            import datasets
            import huggingface_hub
        except ImportError as error:
            raise DlmError(
                "config.corpus.name='hub': needs the package datasets: pip install 'dlm[hf]'"
            ) from error
        if not self.files:
            about = huggingface_hub.HfApi().dataset_info(self.dataset, revision=revision or None)
            revision = about.sha or revision
        data = datasets.load_dataset(
            self.dataset,
            self.subset or None,
            split=self.split,
            streaming=True,
            revision=revision or None,
            data_files=self.files or None,
        )
        return data, revision

    def _text(self, example: dict[str, Any], number: int) -> str | NoText:
        if self.field not in example:
            refuse("field", self.field, f"a field of {self.dataset}, one of {', '.join(example)}")
        text = example[self.field]
        if text is None or text == "":
            return NoText(f"{self.field!r} is {'null' if text is None else 'empty'}")
        if not isinstance(text, str):
            refuse(
                "field", self.field, f"text; document {number:,} of {self.split} has {text!r:.40}"
            )
        return text


def _find(files: Any, splits: list[str]) -> dict[str, list[str]]:
    """The files of each split that is read; none without `files`."""
    if not files:
        return {}
    by_split = files if isinstance(files, dict) else {splits[0]: files}
    by_name = {}
    for split in splits:
        patterns = by_split.get(split, [])
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            refuse("files", files, "a glob, a list of globs, or these by split")
        paths: set[str] = set()
        for pattern in patterns:
            if len(pattern) > LONGEST:
                refuse("files", pattern, f"at most {LONGEST:,} characters")
            matches = glob.glob(os.path.expanduser(pattern), recursive=True)
            if not matches:
                refuse("files", pattern, "a file that exists, or a glob that matches one")
            paths.update(os.path.abspath(match) for match in matches)
            if odd := [path for path in matches if not os.path.isfile(path)]:
                refuse("files", odd[0], "a file, not a folder, a pipe or a device")
        if not paths:
            refuse("files", files, f"globs of the files of each split, here also of {split!r}")
        by_name[split] = sorted(paths)
    return by_name
