"""Each contestant with a model or an engine whose replies are given; for the tries."""
