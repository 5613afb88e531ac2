"""What entanglement routes are made of: offers per link, exact searches, on-demand candidates, many requests in a slot."""
