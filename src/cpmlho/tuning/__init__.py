"""The numerics: networks with a response, their training, and the methods that tune it."""
