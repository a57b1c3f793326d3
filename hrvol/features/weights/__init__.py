"""Find, convert, verify and cache the weights of networks."""
