"""One process by itself: its signals, its start, its time limit, its open files. Imports no torch.

Apart from engine/distributed, as it has to stand before torch is imported and knows of no other rank.
"""
