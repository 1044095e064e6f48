"""The networks: a family of generators each in its folder, `registry` that lists them, and what they share."""
