"""Which samples form which batch, and how workers read them ahead of the device."""
