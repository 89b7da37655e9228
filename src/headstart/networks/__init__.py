"""Name -> frozen network: the catalogue, where weights come from, and the engine that runs them."""
