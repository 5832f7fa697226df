"""Where arrays live: one contract, and an engine for each kind of place."""
