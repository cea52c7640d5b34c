"""Stands in for gcloud, ssh, sbatch, ... on the PATH: records its call, and answers as it is told.

`answers.json` in $FAKE is a list of [words that the call contains, output, exit code]; the first that
fits is used up. Without one, a call prints nothing and succeeds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> int:
    folder = Path(os.environ["FAKE"])
    call = [Path(sys.argv[0]).name, *sys.argv[1:]]
    with (folder / "calls").open("a") as file:
        file.write(json.dumps(call) + "\n")
    answers = json.loads((folder / "answers.json").read_text())
    for answer in answers:
        words, output, code = answer
        if words in " ".join(call):
            answers.remove(answer)
            (folder / "answers.json").write_text(json.dumps(answers))
            print(output, end="\n" if output else "")
            return code
    return 0


class Fakes:
    """Commands of these names in a folder that goes first on the PATH."""

    def __init__(self, folder: Path, *names: str):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in names:
            path = folder / "bin" / name
            path.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text())
            path.chmod(0o755)
        self.answer()
        self.environment = {
            "FAKE": str(folder),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }

    def answer(self, *answers: tuple[str, str, int]) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers))

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
