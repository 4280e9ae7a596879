"""What the zoo raises."""


class ZooError(ValueError):
    """A network that does not exist, or weights that are refused; the message says what is allowed."""
