"""The networks: families of generators, one per folder; `registry`, which lists them; and the code that they share."""
