"""One process by itself: its signals, its start, its time limit, its open files. Imports no torch."""
