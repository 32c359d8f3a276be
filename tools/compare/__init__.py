"""Any number of experiments beside each other: what differs in them, what came of it, and what chance would do."""
