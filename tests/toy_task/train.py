"""``python -m tests.toy_task.train --config FILE …``"""

from engine.commands.entry import train
from tests.toy_task.spec import SPEC

if __name__ == "__main__":
    train(SPEC)
