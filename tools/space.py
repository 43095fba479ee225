"""`python -m tools.space`: writes the front matter of README.md, which a Hugging Face Space reads, from `Spacefile`.

`--check` compares and changes nothing. The manifest is copied as it stands, so no YAML is parsed beyond the plain
`key: value` lines that are checked here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = "---\n"


def fields(manifest: str) -> dict[str, str]:
    """The manifest's plain `key: value` lines, without quotes; keys that hold a list are left out."""
    lines = (re.fullmatch(r"(\w+): (.+)", line) for line in manifest.splitlines())
    return {line[1]: line[2].strip().strip("\"'") for line in lines if line}


def pinned(requirements: str, package: str) -> str | None:
    """The version that `requirements.txt` pins `package` to."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", requirements, re.MULTILINE)
    return found[1] if found else None


def faults(root: Path) -> Iterator[str]:
    """One sentence for each way in which the manifest disagrees with the rest of the project."""
    known = fields((root / "Spacefile").read_text("utf-8"))
    pin = pinned((root / "requirements.txt").read_text("utf-8"), "gradio")
    if known.get("sdk_version") != pin:
        yield f"Spacefile has sdk_version {known.get('sdk_version')}, but requirements.txt pins gradio to {pin}."
    if not (root / known.get("app_file", "")).is_file():
        yield f"Spacefile has app_file {known.get('app_file')}, and there is no such file."


def body(readme: str) -> str:
    """README.md without its front matter, if it has one."""
    if not readme.startswith(FENCE):
        return readme
    _, fence, rest = readme[len(FENCE) :].partition(f"\n{FENCE}")
    return rest.lstrip("\n") if fence else readme


def with_front_matter(readme: str, manifest: str) -> str:
    return f"{FENCE}{manifest.strip()}\n{FENCE}\n{body(readme)}"


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.space", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 where they differ")
    options = parser.parse_args(arguments)
    problems = list(faults(root))
    readme = root / "README.md"
    now = readme.read_text("utf-8")
    wanted = with_front_matter(now, (root / "Spacefile").read_text("utf-8"))
    if options.check and now != wanted:
        problems.append("README.md does not begin with what Spacefile says: run 'make space'.")
    elif not problems and now != wanted:
        readme.write_text(wanted, "utf-8")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
