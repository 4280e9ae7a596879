"""What the command lines share: options made from a configuration, one-line errors."""
