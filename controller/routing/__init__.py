"""The paths: pure functions from a topology and a request to a route, or to one refusal that says why there is none."""
