"""``python -m detection.evaluate --experiment DIR [--checkpoint best|last|FILE] [--split val|test] [key=value …]``

Evaluates a trained model on any number of ranks and writes results/<split>/ in the experiment's folder.
"""

from __future__ import annotations

from detection.spec import SPEC
from engine.commands.entry import evaluate

if __name__ == "__main__":
    evaluate(SPEC)
