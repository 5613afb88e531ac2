"""What lightpaths are made of: the plant, ways of light through it, strands and bundles, joint assignment."""
