"""``python -m diffusion.train --config FILE [--resume DIR|auto] [--dry-run] [key.path=value ...]``"""

from __future__ import annotations

from diffusion.spec import SPEC
from engine.commands.entry import train

if __name__ == "__main__":
    train(SPEC)
