"""``python -m diffusion.evaluate --experiment DIR [--checkpoint best|last|FILE] [--split val|test] [key=value …]``

Measures a trained model on any number of ranks, samples of it too, and writes results/<split>/ in the experiment's
folder.
"""

from __future__ import annotations

from diffusion.spec import SPEC
from engine.commands.entry import evaluate

if __name__ == "__main__":
    evaluate(SPEC)
