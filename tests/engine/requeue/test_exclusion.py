"""Which nodes a requeued job keeps off; on a real Slurm in tests/slurm/test_requeue.py."""

from __future__ import annotations

import pytest

from engine.requeue.exclusion import Node, exclusions

FOUR = [Node(f"n{number}", "idle", frozenset({"a100", "ib"})) for number in range(3)] + [Node("n3", "mix")]


@pytest.mark.parametrize(
    ("job", "excluded", "nodes", "expected"),
    [
        ({}, [], FOUR, ["n1"]),
        ({"ExcNodeList": "n0"}, ["n0"], FOUR, ["n0", "n1"]),
        ({"NumNodes": "2-2"}, ["n0"], FOUR, ["n0", "n1"]),
        ({"NumNodes": "3"}, ["n0"], FOUR, "would leave 2 node(s) to a job that needs 3"),
        ({"Features": "a100&ib"}, ["n0"], FOUR, ["n0", "n1"]),
        ({"Features": "a100&ib"}, ["n0", "n2"], FOUR, "would leave 0 node(s) to a job that needs 1"),
        ({"Features": "[a100|h100]"}, [], FOUR, "how many nodes --constraint=[a100|h100] leaves"),
        ({"ReqNodeList": "n1"}, [], FOUR, "the job names its nodes (--nodelist=n1)"),
        ({}, ["n1"], FOUR, "node n1 is excluded already"),
        ({}, [], [Node("n0", "down*"), Node("n1", "mix"), Node("n2", "drain"), Node("n3", "drng")], "would leave 0"),
        ({}, [], [Node("n0", "idle~"), Node("n1", "down*")], ["n1"]),
    ],
)
def test_a_node_is_excluded_if_enough_are_left(
    job: dict[str, str], excluded: list[str], nodes: list[Node], expected: list[str] | str
) -> None:
    job = {"NumNodes": "1", "Features": "(null)", "ReqNodeList": "(null)", **job}
    if isinstance(expected, list):
        assert exclusions("n1", job, excluded, nodes) == expected
        return
    with pytest.raises(ValueError, match="node n1 is") as caught:
        exclusions("n1", job, excluded, nodes)
    assert expected in str(caught.value)
