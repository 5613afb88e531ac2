"""THE MEMORY: hard state under keys, changed by compare-and-set."""
