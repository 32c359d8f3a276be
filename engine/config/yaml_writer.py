"""Plain trees as YAML for people: sections apart, short lists on one line, any reader's reading the same."""

from __future__ import annotations

from typing import Any

import yaml

from engine.config.yaml_reader import SCALARS


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 (``no``, ``12:00``) or YAML 1.2 (``1e-3``) would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    lines = text.split("\n")
    # Exotic line ends and control characters only survive as escapes.
    style = '"' if not all(line.isprintable() for line in lines) else "|" if len(lines) > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


for _tag, (_pattern, _) in SCALARS.items():
    _Dumper.add_implicit_resolver(_tag, _pattern, None)
_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def dump_yaml(tree: dict[str, Any]) -> str:
    """Formats ``tree`` as YAML text in the order of its keys, its mappings set apart by empty lines."""
    parts = []
    for key, value in tree.items():
        text = yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        parts.append(f"\n{text}" if isinstance(value, dict) and value else text)
    return "".join(parts).lstrip("\n") or "{}\n"
