"""Searches, flows and deviations on the compiled arrays, whatever the links carry."""
