"""What a task is to the engine: its spec, what it trains, what it makes of an experiment."""
