"""What key relaying is made of: key segments, disjoint paths, pools, and the sharing of key among many demands."""
