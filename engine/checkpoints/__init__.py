"""Durable saves: written aside, verified, in the background, and only where there is room."""
