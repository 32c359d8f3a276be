"""JSON Schemas of the configuration files, for editors that complete and check them.

``python -m tools.schemas`` writes configs/schema/<task>.json; ``--check`` writes nothing and fails if one is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.config.reference import json_schema
from engine.task.spec import find_spec, known_tasks

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "schema"


def schema_text(task: str) -> str:
    """Returns the content of a task's schema file."""
    document = json_schema(find_spec(task).schema(), title=f"Configuration of a {task} run")
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def stale(folder: Path = FOLDER) -> list[Path]:
    """Returns the schema files in ``folder`` that are missing or differ from what the types say."""
    files = {folder / f"{task}.json": schema_text(task) for task in known_tasks()}
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def write(folder: Path = FOLDER) -> list[Path]:
    """Brings the schema files in ``folder`` up to date; returns those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(folder)
    for path in changed:
        path.write_text(schema_text(path.stem), encoding="utf-8")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Writes the schemas, or with ``--check`` only tells which are stale."""
    parser = command_parser(
        "python -m tools.schemas",
        "Writes configs/schema/TASK.json, by which editors complete and check configurations.",
        ["python -m tools.schemas --check"],
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    check = parser.parse_args(arguments).check
    for path in stale() if check else write():
        print(f"{path}: {'stale; run python -m tools.schemas' if check else 'written'}")
    return int(check and bool(stale()))


if __name__ == "__main__":
    sys.exit(main())
