"""``python -m tests.toy_task.evaluate --experiment DIR …``"""

from engine.commands.entry import evaluate
from tests.toy_task.spec import SPEC

if __name__ == "__main__":
    evaluate(SPEC)
